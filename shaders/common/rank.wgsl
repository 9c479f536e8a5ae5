// The rank of the element at index i in memory (N,H,W,C), in a batch of `len` elements: larger for
// a lower NCHW index.
fn rank_of(i: u32, len: u32, c: u32, area: u32) -> u32 {
    let pixel = i / c;
    let sample = pixel / area;
    let index = (sample * c + (i - pixel * c)) * area + (pixel - sample * area);
    return len - 1u - index;
}
