//!include conv2d map fours grid
//!include place workgroup_tile rows conv2d_fwd_pixels conv2d_fwd_partials conv2d_fwd_product
// partials[slice,n,p,q,k] = sum over a slice of the terms (r,s,c) of x[n, p*stride - pad +
//   r*dilation, ..., c] * w[r,s,c,k], without groups. conv2d_epilogue adds the slices.
// conv2d_fwd_tiled for products with too few tiles to fill a large GPU: several workgroups share
//   the sum of a tile.
// Layouts: those of conv2d_fwd_tiled; partials (slices, N,P,Q,K) with `slice_stride` elements from
//   slice to slice.
// Workgroup: 64 pixels by 4*COLUMNS filters of one slice.
// Grid: slices * ceil(N*P*Q / 64) * ceil(K / (4*COLUMNS)) workgroups, filters fastest.
// Preconditions: those of conv2d_fwd_tiled; has_bias = 0; `slice_terms` is a multiple of 32, so
//   that only the last slice has fewer terms.
// Twin: Conv2dFwd in src/ops/conv2d/cpu.rs.
