// Access to maps four channels of one pixel at a time, or one element in all four lanes.

// C is a multiple of 4, so that a vec4 lies within one pixel.
override VEC: bool = false;

// `four` is the vec4 that contains element i. With VEC it is returned as it is, else element i in
// every lane.
fn lanes(four: vec4<f32>, i: u32) -> vec4<f32> {
    if VEC {
        return four;
    }
    return vec4<f32>(four[i % 4u]);
}
