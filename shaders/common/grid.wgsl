// Flat numbers of workgroups and invocations. wgpu allows 65,535 workgroups in one dimension, so
// the host folds larger grids into two.
fn flat_workgroup(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

fn flat_invocation(group: vec3<u32>, groups: vec3<u32>, local: u32, size: u32) -> u32 {
    return flat_workgroup(group, groups) * size + local;
}
