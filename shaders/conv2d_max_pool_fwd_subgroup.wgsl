//!include conv2d map fours nan activation grid largest
//!include place subgroup_tile conv2d_fwd_windows conv2d_fwd_product
// y[n,i,j,k] = max over p in (2i, 2i+1), q in (2j, 2j+1) of f(b[k] + sum over r,s,c of x[n,
//   p*stride - pad + r*dilation, ..., c] * w[r,s,c,k]), without groups. switches[n,i,j,k] = p * Q +
//   q of the maximum.
// Layouts: x (N,H,W,C), w (R,S,C,K), b (K), y and switches (N,P/2,Q/2,K). `x4` and `w4` are `x` and
//   `w` bound as vec4s. VEC_C: C is a multiple of 4. VEC_K: K is a multiple of 4.
// The product of conv2d_fwd_subgroup with its rows ordered by pooling window.
// Invocation: one window by 4*COLUMNS filters.
// Grid: ceil(windows / 8) * ceil(K / (4*COLUMNS)) workgroups, filters fastest.
// Preconditions: those of conv2d_fwd_subgroup (subgroups of 8 invocations or more); K is a multiple
//   of 4. `b` is read only if has_bias = 1; otherwise any f32 buffer can be bound.
// Twin: Conv2dMaxPoolFwd in src/ops/conv2d/cpu.rs.
