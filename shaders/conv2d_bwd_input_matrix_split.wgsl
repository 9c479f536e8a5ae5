//!include conv2d map fours grid matrix matrix_memory matrix_tile rows conv2d_bwd_input_partials
//!include conv2d_bwd_input_product
// partials[slice,n,h,w,c] = sum over a slice of the terms (r,s,k) of y[n,p,q,k] * w[r,s,c,k] over
//   the (p,q) with p*stride - pad + r*dilation = h, and the same for columns, without groups.
//   conv2d_epilogue adds the slices.
// conv2d_bwd_input_matrix for products with too few tiles to fill a large GPU: several workgroups
//   share the sum of a tile. A slice past the terms of a phase is 0.
// Layouts: those of conv2d_bwd_input_matrix; partials (slices, N,H,W,C) with `slice_stride`
//   elements from slice to slice.
// Workgroup: 64 pixels by 4*COLUMNS channels of one slice.
// Grid: slices * stride_h*stride_w * ceil(N*ceil(H/stride_h)*ceil(W/stride_w) / 64) *
//   ceil(C / (4*COLUMNS)) workgroups, channels fastest.
// Preconditions: those of conv2d_bwd_input_matrix; has_bias = 0; `slice_terms` is a multiple of
//   32, so that only the last slice has fewer terms.
// Twin: Conv2dBwdInput in src/ops/conv2d/cpu.rs.
