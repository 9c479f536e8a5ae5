//!include conv2d map gate fours nan activation grid subgroup_tile rows conv2d_fwd_pixels conv2d_fwd_product
// y[n,p,q,k] = f(b[k] + sum over r,s,c of x[n, p*stride - pad + r*dilation, ..., c] * w[r,s,c,k]),
// without groups. x (N,H,W,C), w (R,S,C,K), b (K), y (N,P,Q,K). An implicit matrix product: rows
// are pixels (n,p,q), columns filters, steps (r,s,c).
// One invocation: 4 pixels in a row of memory by 4*COLUMNS filters. Grid: ceil(N*P*Q / 32) * ceil(K
// / (4*COLUMNS)) workgroups, filters fastest. `x4`, `w4` and `y4` are `x`, `w` and `y` again, four
// at a time: VEC_C says that C, VEC_K that K is a multiple of 4.
// Filters past K compute something that is not stored; their loads may pass the end of `w` and are
// then caught by WGSL's bounds rule.
// GATED: y = f'(from gate) * sum, `gate` being the output of f, as large as y.
// Precondition: subgroups of 8 invocations or more. Without bias (`has_bias` = 0) any reals may be
// bound as `b`, without GATED any map as `gate`.
// Twin: Conv2dFwd in src/reference/conv2d.rs.
