// Parameters of pooling: x (N,H,W,C), windows of R by S, y (N,P,Q,C); `vectors` is how many times
// four elements a kernel writes.
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
