// Parameters of pooling: x (N,H,W,C), windows of R by S, y (N,P,Q,C). `vectors` is the number of
// vec4s that the kernel writes. The struct is PoolParams of src/ops/pool2d.rs.
struct Params {
    vectors: u32,
    c: u32,
    h: u32,
    w: u32,
    p: u32,
    q: u32,
    r: u32,
    s: u32,
    stride_h: u32,
    stride_w: u32,
    pad_h: u32,
    pad_w: u32,
}
