"""What is measured with a supernet or a network: latency, feature maps, the gap, the sharing of weights."""
