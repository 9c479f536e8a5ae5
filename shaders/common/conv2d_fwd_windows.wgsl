// Row order of a forward convolution that is followed by 2 by 2 max pooling: rows of the product
// are the outputs of the convolution by pooling window (n,i,j), and within a window (2i,2j),
// (2i,2j+1), (2i+1,2j), (2i+1,2j+1). Outputs that lie in no window are not computed. y and switches
// (N,P/2,Q/2,K), K a multiple of 4.
override ACTIVATION: u32 = 0u;

@group(0) @binding(6) var<storage, read_write> y4: array<Map4>;
@group(0) @binding(7) var<storage, read_write> switches: array<vec4<u32>>;

// The four outputs of the convolution in one pooling window: the top left corners of their windows
// in x, and the numbers (n*H + h)*W + w of these corners among the pixels of x.
struct Pixels {
    h: vec4<i32>,
    w: vec4<i32>,
    corner: vec4<i32>,
}

// The outputs of the pooling window that begins at row `first`, a multiple of 4.
fn locate(first: u32) -> Pixels {
    let window = first / 4u;
    let row = window / (p.q / 2u);
    let down = row % (p.p / 2u) * 2u + vec4<u32>(0u, 0u, 1u, 1u);
    let along = window % (p.q / 2u) * 2u + vec4<u32>(0u, 1u, 0u, 1u);
    let top = vec4<i32>(down * p.stride_h) - i32(p.pad_h);
    let left = vec4<i32>(along * p.stride_w) - i32(p.pad_w);
    let corner = (i32(row / (p.p / 2u)) * i32(p.h) + top) * i32(p.w) + left;
    // -2^30 for windows past the end: outside x whatever a tap adds.
    return Pixels(select(vec4<i32>(-0x40000000), top, first < rows()), left, corner);
}

fn rows() -> u32 {
    return p.n * (p.p / 2u) * (p.q / 2u) * 4u;
}

fn activated(sum: vec4<f32>) -> vec4<f32> {
    return activate4(ACTIVATION, p.parameter, sum);
}

// Stores the maximum of the four rows of a pooling window and its position.
fn store_rows(first: u32, k: u32, sums: mat4x4<f32>) {
    if first >= rows() || k >= p.k {
        return;
    }
    let window = first / 4u;
    let at = window / (p.q / 2u) % (p.p / 2u) * 2u * p.q + window % (p.q / 2u) * 2u;
    var largest = Largest(activated(sums[0]), vec4<u32>(at));
    largest = larger(largest, activated(sums[1]), at + 1u);
    largest = larger(largest, activated(sums[2]), at + p.q);
    largest = larger(largest, activated(sums[3]), at + p.q + 1u);
    let i = (window * p.k + k) / 4u;
    y4[i] = to_map4(largest.value);
    switches[i] = largest.at;
}
