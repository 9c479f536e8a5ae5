// The place of an invocation in its workgroup, as tiles need it.
struct Place {
    @builtin(local_invocation_index) local: u32,
}
