//!include conv2d map gate fours nan activation grid subgroup_tile rows conv2d_bwd_input_product
// x[n,h,w,c] = f(b[c] + sum over r,s,k of y[n,p,q,k] * w[r,s,c,k]) over the (p,q) with p*stride -
// pad + r*dilation = h, without groups: the gradient of a convolution by its input, and the forward
// of a transposed convolution. y (N,P,Q,K), w (R,S,C,K), b (C), x (N,H,W,C). An implicit matrix
// product: rows are pixels of x, columns channels, steps (r,s,k).
// The pixels of a workgroup have the same phase (h mod stride, w mod stride), hence the same taps:
// pixel number = (n, i, j) with h = i*stride_h + phase_h, w = j*stride_w + phase_w; what falls
// outside x is not stored.
// One invocation: 4 pixels by 4*COLUMNS channels.
// Grid: stride_h*stride_w * ceil(N*ceil(H/stride_h)*ceil(W/stride_w) / 32) * ceil(C / (4*COLUMNS))
// workgroups, channels fastest. `y4`, `w4` and `x4` are `y`, `w` and `x` again, four at a time:
// VEC_C says that C, VEC_K that K is a multiple of 4.
// Channels past C compute something that is not stored; their loads may pass the end of `w` and are
// then caught by WGSL's bounds rule.
// GATED: x = f'(from gate) * sum, `gate` being the output of f, as large as x.
// Precondition: subgroups of 8 invocations or more. Without bias (`has_bias` = 0) any reals may be
// bound as `b`, without GATED any map as `gate`.
// Twin: Conv2dBwdInput in src/reference/conv2d.rs.
