//!include conv2d map fours grid matrix matrix_memory matrix_tile rows no_bias_sums
//!include conv2d_bwd_weight_product
// dw[r,s,c,k] = sum over n,p,q of x[n, p*stride - pad + r*dilation, ..., c] * dy[n,p,q,k], split
//   into slices of the pixels (n,p,q), without groups.
// Layouts: x (N,H,W,C), dy (N,P,Q,K), out (slices, R,S,C,K) with `slice_stride` elements from slice
//   to slice: partial sums that sum_partials adds, or dw itself if there is one slice. `x4`, `dy4`
//   and `out4` are `x`, `dy` and `out` bound as vec4s. VEC_C: C is a multiple of 4. VEC_K: K is a
//   multiple of 4.
// A matrix product on cooperative matrices: rows are (r,s,c), columns are filters, the sum runs
//   over the pixels of a slice. Operands are f16 or f32, sums are f32.
// Workgroup: 64 rows by 4*COLUMNS filters.
// Grid: slices * ceil(R*S*C / 64) * ceil(K / (4*COLUMNS)) workgroups, filters fastest.
// Preconditions: the matrices and subgroups of common/matrix.wgsl, with maps in half precision, or
//   those of common/matrix_8x8.wgsl. Filters past K are computed but not stored: their loads may
//   run past the end of a buffer, so bounds checks must stay on.
// Twin: Conv2dBwdWeight in src/ops/conv2d/cpu.rs.
