//!include conv2d map step gate fours nan activation grid
//!include place workgroup_tile rows conv2d_fwd_pixels conv2d_fwd_store conv2d_fwd_product
// y[n,p,q,k] = f(b[k] + sum over r,s,c of x[n, p*stride - pad + r*dilation, ..., c] * w[r,s,c,k]),
//   without groups.
// GATED: y = f'(from gate) * sum, where `gate` (as large as y) is the output of f. An L1 penalty on
//   that output adds to sum, as common/gate.wgsl describes.
// Layouts: x (N,H,W,C), w (R,S,C,K), b (K), y and gate (N,P,Q,K). `x4`, `w4` and `y4` are `x`, `w`
//   and `y` bound as vec4s. VEC_C: C is a multiple of 4. VEC_K: K is a multiple of 4.
// An implicit matrix product: rows are pixels (n,p,q), columns are filters, the sum runs over
//   (r,s,c).
// Workgroup: 64 pixels by 4*COLUMNS filters.
// Grid: ceil(N*P*Q / 64) * ceil(K / (4*COLUMNS)) workgroups, filters fastest.
// Preconditions: `b` is read only if has_bias = 1, `gate` only with GATED; otherwise any buffer of
//   the type can be bound. Filters past K are computed but not stored: their loads may run past the
//   end of `w`, so bounds checks must stay on.
// Twin: Conv2dFwd in src/ops/conv2d/cpu.rs.
