//!include conv2d fours nan map gate activation grid rows conv2d_fwd_pixels conv2d_fwd_registers
// y[n,p,q,k] = f(b[k] + sum over r,s,c of x[n, p*stride - pad + r*dilation, ..., c] * w[r,s,c,k]),
// without groups. x (N,H,W,C), w (R,S,C,K), b (K), y (N,P,Q,K). An implicit matrix product in
// registers: arithmetic per load is what counts.
// One invocation: 8 pixels (n,p,q) in a row of memory by 8 filters. Grid: ceil(N*P*Q / 8) * ceil(K
// / 8) invocations, filters fastest. `x4`, `w4` and `y4` are `x`, `w` and `y` again, four at a
// time: VEC_C says that C, VEC_K that K is a multiple of 4; NARROW that K <= 4.
// Filters past K compute something that is not stored; their loads may pass the end of `w` and are
// then caught by WGSL's bounds rule.
// GATED: y = f'(from gate) * sum, `gate` being the output of f, as large as y.
// Without bias (`has_bias` = 0) any reals may be bound as `b`, without GATED any map as `gate`.
// Twin: Conv2dFwd in src/reference/conv2d.rs.
