"""Text as a stranger may write it, for the laws over all writers."""

HOSTILE = [
    "</script><script>alert(1)</script>", '" onload="x', "]]>", "<!--", "=HYPERLINK(1)", "+1", "-1+1", "@SUM(1)", "\t=1",
    "a\x1b[2J\x1b]0;title\x07b", "a\rb", "a\nb", "\\input{/etc/passwd}", "100% $x$ #_&^~", "| a | b |", "`code`",
    "![x](http://x)", "[x](javascript:1)", "*a* _b_", "{0.__class__}", "%s%n", "\u202etxt.exe", "\ud800", "caf\u00e9",
    "a'b\"c\\", "__import__('os')", "\U0001f600",
]  # fmt: skip
