//!include conv2d map fours nan activation grid largest conv2d_fwd_windows conv2d_fwd_registers
// y[n,i,j,k] = the largest f(b[k] + sum over r,s,c of x[n, p*stride - pad + r*dilation, ..., c] *
// w[r,s,c,k]) of p in (2i, 2i+1), q in (2j, 2j+1), switches[n,i,j,k] its position p * Q + q. x
// (N,H,W,C), w (R,S,C,K), b (K), y and switches (N,P/2,Q/2,K), without groups. conv2d_fwd_regs,
// whose rows are taken by windows. One invocation: two windows by 8 filters. Grid: ceil(windows /
// 2) * ceil(K / 8) invocations, filters fastest. `x4` and `w4` are `x` and `w` again, four at a
// time: VEC_C says that C, VEC_K that K is a multiple of 4; NARROW that K <= 4.
// Without bias (`has_bias` = 0) any reals may be bound as `b`. Precondition: K a multiple of 4.
// Twin: Conv2dMaxPoolFwd in src/reference/conv2d.rs.
