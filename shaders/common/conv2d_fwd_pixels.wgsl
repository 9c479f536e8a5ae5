// Row order of a forward convolution: rows of the product are the pixels (n,p,q) of y in memory
// order.
// Four pixels of y: the top left corners of their windows in x, and the numbers (n*H + h)*W + w of
// these corners among the pixels of x.
struct Pixels {
    h: vec4<i32>,
    w: vec4<i32>,
    corner: vec4<i32>,
}

// The four pixels from number `first` on.
fn locate(first: u32) -> Pixels {
    let pixel = first + vec4<u32>(0u, 1u, 2u, 3u);
    let row = pixel / p.q;
    let inside = pixel < vec4<u32>(rows());
    let top = vec4<i32>(row % p.p * p.stride_h) - i32(p.pad_h);
    let left = vec4<i32>(pixel % p.q * p.stride_w) - i32(p.pad_w);
    let corner = (vec4<i32>(row / p.p) * i32(p.h) + top) * i32(p.w) + left;
    // -2^30 for pixels past the end: outside x whatever a tap adds.
    return Pixels(select(vec4<i32>(-0x40000000), top, inside), left, corner);
}

fn rows() -> u32 {
    return p.n * p.p * p.q;
}
