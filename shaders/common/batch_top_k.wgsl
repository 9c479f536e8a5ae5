// Batch selection by many workgroups: what the passes hand on to each other in `work`, which the
// kernel declares. Needs `key`.
// One record a pass: how often each digit occurs, and what was known before these were counted.

const RECORD = 260u;
const CUT = 256u;
const LOWEST = 257u;
const WANTED = 258u;
// In the first record only: the smallest key above 0.
const SMALLEST = 259u;

// Passes over the keys come first, one a byte; those over the ranks of equal keys follow.
const KEY_PASSES = 4u;
const NONE = 0xffffffffu;

// Lowest bit of the digit of a pass.
fn shift_of(number: u32, len: u32) -> u32 {
    return select(bits_of(len - 1u) - 8u * (number - (KEY_PASSES - 1u)), 24u - 8u * number, number < KEY_PASSES);
}

// The digit that a pass has found. Every invocation of the workgroup, 256 of them, calls it and
// gets the same answer.
fn found_digit(local: u32, number: u32) -> Digit {
    let record = number * RECORD;
    atomicStore(&digit_counts[local], atomicLoad(&work[record + local]));
    return choose_digit(local, atomicLoad(&work[record + WANTED]));
}

// Key of the last one kept and, among its equals, the rank of the last one kept, as far as passes
// have found them.
struct Bound {
    cut: u32,
    lowest: u32,
}

// The bound once a pass has found its digit.
fn bound_after(number: u32, digit: u32, len: u32) -> Bound {
    let record = number * RECORD;
    var bound = Bound(atomicLoad(&work[record + CUT]), atomicLoad(&work[record + LOWEST]));
    let bits = digit << shift_of(number, len);
    if number < KEY_PASSES {
        bound.cut |= bits;
    } else {
        bound.lowest |= bits;
    }
    return bound;
}

// Notes in a pass's record what was known before it.
fn note(number: u32, bound: Bound, wanted: u32) {
    let record = number * RECORD;
    atomicStore(&work[record + CUT], bound.cut);
    atomicStore(&work[record + LOWEST], bound.lowest);
    atomicStore(&work[record + WANTED], wanted);
}

// Adds the workgroup's counts to a pass's record. Every invocation of the workgroup, 256 of them,
// calls it.
fn add_counts(local: u32, number: u32) {
    let count = atomicLoad(&digit_counts[local]);
    if count > 0u {
        atomicAdd(&work[number * RECORD + local], count);
    }
}
