// Row order of a forward convolution: rows of the product are the pixels (n,p,q) of y in memory
// order.
override GATED: bool = false;

@group(0) @binding(6) var<storage, read> gate: array<Map4>;
@group(0) @binding(7) var<storage, read_write> y: array<Map>;
@group(0) @binding(8) var<storage, read_write> y4: array<Map4>;

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

// The value stored at element i: f(sum), or with GATED the sum times the slope at the gate.
fn epilogue(i: u32, sum: vec4<f32>) -> vec4<f32> {
    if GATED {
        return sum * activation_slope_output4(ACTIVATION, p.parameter, gate4_at(i, VEC_K));
    }
    return activate4(ACTIVATION, p.parameter, sum);
}

// Stores four filters of a pixel.
fn store(pixel: u32, k: u32, sum: vec4<f32>) {
    if pixel >= rows() || k >= p.k {
        return;
    }
    let i = pixel * p.k + k;
    let v = epilogue(i, sum);
    if VEC_K {
        y4[i / 4u] = to_map4(v);
        return;
    }
    y[i] = Map(v.x);
    if k + 1u < p.k {
        y[i + 1u] = Map(v.y);
    }
    if k + 2u < p.k {
        y[i + 2u] = Map(v.z);
    }
    if k + 3u < p.k {
        y[i + 3u] = Map(v.w);
    }
}
