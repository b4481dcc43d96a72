"""Fused implementations of a cell: the numbers of the reference execution, in less time and memory.

:mod:`~gapless.kernels.forms` describes operations as data, :mod:`~gapless.kernels.layout` records what a fan of them
computes, and :mod:`~gapless.kernels.fan` chooses one of three backends: :mod:`~gapless.kernels.plain` (PyTorch),
:mod:`~gapless.kernels.cpu` (Numba) and :mod:`~gapless.kernels.gpu` (Triton). Their functions share these letters:

=============  =================================================================================================
letter         meaning
=============  =================================================================================================
N, n           number of images; an image
H, W, C        height, width and channels of an input
h, w, O        height, width and channels of an output
P, m           number of pixels, counted over all images or over one; a pixel
K, s, p, d     kernel side, stride, padding and dilation of a depthwise convolution or a pool
k, ks, kp, kd  the same of a full convolution
ky, kx         a pixel of a kernel
x, z, y        input of a step, output of its depthwise convolution, input of its normalisation
g              gradient of the output of a normalisation
e              gradient of the input of a normalisation
V              channels of all normalisations of a fan together
v              vector type of the CPU's functions
R, T           rows, and columns of tiles, in Winograd's algorithm; T on a GPU: kernel rows between two outputs
BP, BC, BO     pixels, input channels and output channels of a block of the GPU
A, B           alignment of offsets, number of partial sums, on a GPU
=============  =================================================================================================
"""
