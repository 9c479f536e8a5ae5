//!include conv2d map fours nan activation grid largest matrix matrix_tile conv2d_fwd_windows conv2d_fwd_product
// y[n,i,j,k] = the largest f(b[k] + sum over r,s,c of x[n, p*stride - pad + r*dilation, ..., c] *
// w[r,s,c,k]) of p in (2i, 2i+1), q in (2j, 2j+1), switches[n,i,j,k] its position p * Q + q. x
// (N,H,W,C), w (R,S,C,K), b (K), y and switches (N,P/2,Q/2,K), without groups. conv2d_fwd_matrix,
// whose rows are taken by windows. One workgroup: 16 windows by 4*COLUMNS filters. Grid:
// ceil(windows / 16) * ceil(K / (4*COLUMNS)) workgroups, filters fastest. `x4` and `w4` are `x` and
// `w` again, four at a time: VEC_C says that C, VEC_K that K is a multiple of 4.
// Preconditions: those of conv2d_fwd_matrix, and K a multiple of 4. Without bias (`has_bias` = 0)
// any reals may be bound as `b`.
// Twin: Conv2dMaxPoolFwd in src/reference/conv2d.rs.
