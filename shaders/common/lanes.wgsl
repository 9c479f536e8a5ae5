// Four channels of a pixel at a time, or one in all four lanes.
// Whether C is a multiple of 4, so that a vec4 lies within one pixel.
override VEC: bool = false;

// Of the four elements with element i among them: all, or that one in every lane.
fn lanes(four: vec4<f32>, i: u32) -> vec4<f32> {
    if VEC {
        return four;
    }
    return vec4<f32>(four[i % 4u]);
}
