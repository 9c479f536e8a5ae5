//!include conv2d map step gate fours nan activation grid matrix matrix_memory matrix_tile rows
//!include conv2d_bwd_input_product conv2d_bwd_input_store
// x[n,h,w,c] = f(b[c] + sum over r,s,k of y[n,p,q,k] * w[r,s,c,k]) over the (p,q) with p*stride -
//   pad + r*dilation = h, and the same for columns, without groups. This is the gradient of a
//   convolution with respect to its input, and the forward pass of a transposed convolution.
// GATED: x = f'(from gate) * sum, where `gate` (as large as x) is the output of f. An L1 penalty on
//   that output adds to sum, as common/gate.wgsl describes.
// Layouts: y (N,P,Q,K), w (R,S,C,K), b (C), x and gate (N,H,W,C). `y4`, `w4` and `x4` are `y`, `w`
//   and `x` bound as vec4s. VEC_C: C is a multiple of 4. VEC_K: K is a multiple of 4.
// An implicit matrix product on cooperative matrices: rows are pixels of x, columns are channels,
//   the sum runs over (r,s,k). Operands are f16 (w is rounded) or f32, sums are f32.
// The pixels of a workgroup have the same phase (h mod stride, w mod stride), hence the same taps:
//   pixel number = (n, i, j) with h = i*stride_h + phase_h, w = j*stride_w + phase_w. Pixels
//   outside x are not stored.
// Workgroup: 64 pixels by 4*COLUMNS channels.
// Grid: stride_h*stride_w * ceil(N*ceil(H/stride_h)*ceil(W/stride_w) / 64) * ceil(C / (4*COLUMNS))
//   workgroups, channels fastest.
// Preconditions: the matrices and subgroups of common/matrix.wgsl, with maps in half precision, or
//   those of common/matrix_8x8.wgsl. `b` is read only if has_bias = 1, `gate` only with GATED;
//   otherwise any buffer of the type can be bound. Channels past C are computed but not stored:
//   their loads may run past the end of `w`, so bounds checks must stay on.
// Twin: Conv2dBwdInput in src/ops/conv2d/cpu.rs.
