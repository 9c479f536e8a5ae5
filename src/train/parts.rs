//! The parts of a batch in which some operations compute with the samples of all parts (see
//! [`super::whole_batch`]).

use std::ops::RangeInclusive;

use super::trainer::Trainer;
use super::whole_batch::Shared;
use crate::device::Device;
use crate::error::Result;
use crate::ranks::Group;
use crate::view::StepParams;

/// For each operation on the whole batch, the share of each own part in its result.
pub(super) type Shares = Vec<Vec<Vec<f32>>>;

impl Trainer<'_> {
    /// Runs the operations on the whole batch. Their inputs come from all parts of this process
    /// and, with a group, of all others. Returns nothing if another process failed.
    ///
    /// # Errors
    /// When this process fails, or another one has ended.
    pub(super) fn shares(
        &mut self,
        device: &mut Device,
        group: Option<&Group>,
    ) -> Result<Option<Shares>> {
        let mut shares = Shares::new();
        for number in 0..self.program.wholes.len() {
            let own = self.inputs_of(device, number, &shares);
            let all = match group {
                None => own?,
                Some(group) => match gathered(group, own, self.length_of(number))? {
                    Some(all) => all,
                    None => return Ok(None),
                },
            };
            let share = self.run_whole(device, number, &all)?;
            shares.push(share);
        }
        Ok(Some(shares))
    }

    /// Computes the gradients of a part, with its shares. Returns the step's parameters.
    ///
    /// # Errors
    /// When the device fails, or an image cannot be read.
    pub(super) fn run_part(
        &mut self,
        device: &mut Device,
        part: usize,
        shares: &Shares,
    ) -> Result<StepParams> {
        let params = self.begin_part(device, part, shares)?;
        for program in &self.program.tail {
            device.run(program, &params)?;
        }
        Ok(params)
    }

    /// As [`Trainer::run_part`], without the tail of the last segment.
    ///
    /// # Errors
    /// As there.
    pub(super) fn begin_part(
        &mut self,
        device: &mut Device,
        part: usize,
        shares: &Shares,
    ) -> Result<StepParams> {
        let last = self.program.wholes.len();
        // A process with one part has run the earlier segments for the operations on the batch.
        let first = if self.own_parts.len() == 1 { last } else { 0 };
        self.run_segments(device, part, first..=last, shares)
    }

    /// Runs segments of a part. Before each but the first, the part gets its share of the operation
    /// between them.
    fn run_segments(
        &mut self,
        device: &mut Device,
        part: usize,
        segments: RangeInclusive<usize>,
        shares: &Shares,
    ) -> Result<StepParams> {
        let mut params = self.params_of(part);
        for segment in segments {
            match segment.checked_sub(1) {
                None => self.batches.advance(device, &mut params, part, &self.inputs)?,
                Some(before) => {
                    let (_, whole) = &self.program.wholes[before];
                    let share = &shares[before][part - self.own_parts.start];
                    device.write(whole.output.part, share);
                }
            }
            device.run(&self.program.segments[segment], &params)?;
        }
        Ok(params)
    }

    /// The inputs of an operation on the whole batch, as bits: for each input, those of all own
    /// parts.
    fn inputs_of(
        &mut self,
        device: &mut Device,
        number: usize,
        shares: &Shares,
    ) -> Result<Vec<Vec<u32>>> {
        let inputs = self.program.wholes[number].1.inputs.clone();
        let mut values = vec![Vec::new(); inputs.len()];
        let own = self.own_parts.clone();
        let first = if own.len() == 1 { number } else { 0 };
        for part in own {
            self.run_segments(device, part, first..=number, shares)?;
            for (input, values) in inputs.iter().zip(&mut values) {
                values.extend(bits(device, input)?);
            }
        }
        Ok(values)
    }

    /// Number of values in each input of an operation, of the own parts.
    fn length_of(&self, number: usize) -> Vec<usize> {
        let inputs = &self.program.wholes[number].1.inputs;
        inputs.iter().map(|input| input.part.len * self.own_parts.len()).collect()
    }

    /// Runs an operation on the whole batch. Returns the shares of the own parts.
    fn run_whole(
        &mut self,
        device: &mut Device,
        number: usize,
        inputs: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>> {
        let (program, whole) = &self.program.wholes[number];
        for (input, values) in whole.inputs.iter().zip(inputs) {
            if input.are_words {
                device.write_words(input.whole, values);
            } else {
                device.write(input.whole, bytemuck::cast_slice(values));
            }
        }
        let own = self.own_parts.clone();
        let output = whole.output;
        if whole.is_gradient {
            // Each part has the value of the loss in its row.
            for part in own.clone() {
                device.write(output.whole, &vec![0.0; output.whole.len]);
                device.run(program, &self.params_of(part))?;
            }
        } else {
            // A selection changes its threshold, so it runs once.
            device.run(program, &self.params_of(own.start))?;
        }
        let all = device.read(output.whole)?;
        let length = output.part.len;
        let factor = if whole.is_gradient { self.parts as f32 } else { 1.0 };
        let share = |part: usize| -> Vec<f32> {
            all[part * length..][..length].iter().map(|value| factor * value).collect()
        };
        Ok(own.map(share).collect())
    }
}

fn bits(device: &mut Device, input: &Shared) -> Result<Vec<u32>> {
    if input.are_words {
        return device.read_words(input.part);
    }
    Ok(device.read(input.part)?.into_iter().map(f32::to_bits).collect())
}

/// The inputs of all processes, in the order of ranks. `lengths` are the numbers of own values.
/// Nothing if another process failed.
fn gathered(
    group: &Group,
    own: Result<Vec<Vec<u32>>>,
    lengths: Vec<usize>,
) -> Result<Option<Vec<Vec<u32>>>> {
    let values = match &own {
        Ok(values) => values.concat(),
        Err(_) => vec![0; lengths.iter().sum()],
    };
    let failed = u32::from(own.is_err());
    let sent = [&[failed][..], &values].concat();
    let all = group.gather_equal(bytemuck::cast_slice(&sent).to_vec())?;
    own?;
    let all: Vec<u32> = bytemuck::pod_collect_to_vec(&all);
    let mut inputs = vec![Vec::new(); lengths.len()];
    for of_rank in all.chunks_exact(sent.len()) {
        let (failed, mut rest) = (of_rank[0], &of_rank[1..]);
        if failed != 0 {
            return Ok(None);
        }
        for (input, length) in inputs.iter_mut().zip(&lengths) {
            let (values, others) = rest.split_at(*length);
            input.extend(values);
            rest = others;
        }
    }
    Ok(Some(inputs))
}
