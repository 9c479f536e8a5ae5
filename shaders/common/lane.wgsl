// Writes to one lane of a vec4: `v = select(v, vec4<f32>(x), is_lane(i))` stands for `v[i] = x`.
// FXC, the compiler that wgpu uses on DX12 without dxcompiler.dll, refuses an assignment to a
// component by an index that is not constant.
fn is_lane(i: u32) -> vec4<bool> {
    return vec4<u32>(i) == vec4<u32>(0u, 1u, 2u, 3u);
}
