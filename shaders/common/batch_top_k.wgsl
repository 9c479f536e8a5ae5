// Shared state of a batch-wide top-k selection by many workgroups. Each pass has a record in
// `work`, which the kernel declares: the count of each digit, then what was known before the pass.
// Needs `key`.

// Words of a record: 256 counts and the four words below.
const RECORD = 260u;
// The bits of the smallest key kept that earlier passes have found.
const CUT = 256u;
// The bits of the lowest rank kept among equal keys that earlier passes have found.
const LOWEST = 257u;
// How many elements are still to be selected among those that match these bits.
const WANTED = 258u;
// In the first record only: the smallest key above 0.
const SMALLEST = 259u;

// The first passes go over the four bytes of the keys. Passes over the ranks of equal keys follow.
const KEY_PASSES = 4u;
// No key found. Also the key of NaN.
const NONE = 0xffffffffu;

// The lowest bit of the digit that a pass counts.
fn shift_of(number: u32, len: u32) -> u32 {
    return select(
        whole_byte_bits(len - 1u) - 8u * (number - (KEY_PASSES - 1u)),
        24u - 8u * number,
        number < KEY_PASSES,
    );
}

// Reads the digit that a finished pass selects. All 256 invocations of the workgroup must call it;
// all get the same result, and the counts are 0 for the next digit.
fn read_digit(local: u32, number: u32) -> Digit {
    let record = number * RECORD;
    atomicStore(&digit_counts[local], atomicLoad(&work[record + local]));
    return choose_digit(local, atomicLoad(&work[record + WANTED]));
}

// The smallest key kept and, among elements with that key, the lowest rank kept: the bits found so
// far.
struct Bound {
    cut: u32,
    lowest: u32,
}

// The bound after a pass has found its digit.
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

// Writes what is known before a pass into its record.
fn write_record(number: u32, bound: Bound, wanted: u32) {
    let record = number * RECORD;
    atomicStore(&work[record + CUT], bound.cut);
    atomicStore(&work[record + LOWEST], bound.lowest);
    atomicStore(&work[record + WANTED], wanted);
}

// Adds the workgroup's counts to a pass's record. All 256 invocations of the workgroup must call
// it.
fn add_counts(local: u32, number: u32) {
    let count = atomicLoad(&digit_counts[local]);
    if count > 0u {
        atomicAdd(&work[number * RECORD + local], count);
    }
}
