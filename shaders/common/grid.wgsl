// Grids past 65,535 workgroups are folded into two dimensions; these give the flat numbers back.
fn flat_workgroup(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

fn flat_invocation(group: vec3<u32>, groups: vec3<u32>, local: u32, size: u32) -> u32 {
    return flat_workgroup(group, groups) * size + local;
}
