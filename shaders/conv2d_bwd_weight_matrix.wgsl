//!include conv2d map fours grid matrix matrix_tile rows conv2d_bwd_weight_product
// dw[r,s,c,k] = sum over n,p,q of x[n, p*stride - pad + r*dilation, ..., c] * dy[n,p,q,k], by
// slices of the pixels (n,p,q), without groups. x (N,H,W,C), dy (N,P,Q,K), out (slices, R,S,C,K):
// partial sums with `slice_stride` elements from slice to slice, which sum_slices adds up, or dw
// itself if there is one slice. A matrix product: rows are (r,s,c), columns filters, steps the
// pixels of a slice.
// One workgroup: 64 rows by 4*COLUMNS filters. Grid: slices * ceil(R*S*C / 64) * ceil(K /
// (4*COLUMNS)) workgroups, filters fastest. `x4`, `dy4` and `out4` are `x`, `dy` and `out` again,
// four at a time: VEC_C says that C, VEC_K that K is a multiple of 4.
// Filters past K compute something that is not stored; their loads may pass the end of a view and
// are then caught by WGSL's bounds rule.
// Products of halves, sums in single precision.
// Precondition: maps in half precision; cooperative matrices of 16 by 16 halves with sums in f32,
// subgroups of 32.
// Twin: Conv2dBwdWeight in src/reference/conv2d.rs.
