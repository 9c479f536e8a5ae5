// Whether each lane is NaN. Tested by bits, because compilers may assume that comparisons never see
// NaN.
fn is_nan(v: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}
