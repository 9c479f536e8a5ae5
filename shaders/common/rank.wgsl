// Larger for a lower NCHW index in a batch of `len` elements, from the position in memory
// (N,H,W,C).
fn rank_of(i: u32, len: u32, c: u32, area: u32) -> u32 {
    let pixel = i / c;
    let sample = pixel / area;
    let index = (sample * c + (i - pixel * c)) * area + (pixel - sample * area);
    return len - 1u - index;
}
