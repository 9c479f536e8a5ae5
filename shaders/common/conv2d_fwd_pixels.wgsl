// Row order of a forward convolution: rows of the product are the pixels (n,p,q) of y in memory
// order.
// Four pixels of y: their samples and the top left corners of their windows in x.
struct Pixels {
    n: vec4<i32>,
    h: vec4<i32>,
    w: vec4<i32>,
}

// The four pixels from number `first` on.
fn locate(first: u32) -> Pixels {
    let pixel = first + vec4<u32>(0u, 1u, 2u, 3u);
    let row = pixel / p.q;
    let inside = pixel < vec4<u32>(rows());
    let top = vec4<i32>(row % p.p * p.stride_h) - i32(p.pad_h);
    // -2^30 for pixels past the end: outside x whatever a tap adds.
    let h = select(vec4<i32>(-0x40000000), top, inside);
    return Pixels(vec4<i32>(row / p.p), h, vec4<i32>(pixel % p.q * p.stride_w) - i32(p.pad_w));
}

fn rows() -> u32 {
    return p.n * p.p * p.q;
}
