//! Thresholds and selections.

use super::super::graph::Name;
use super::super::proto::{ElementType, Value};
use super::{Layers, Level};
use crate::error::{Error, Result};
use crate::model::{Node, TopKSpec};

impl Layers<'_> {
    pub(super) fn soft_threshold(&mut self, node: &Node) -> Result<Name> {
        let x = self.read(node, 0)?;
        let threshold = node.weight.ok_or_else(|| Error::usage("it has no thresholds"))?;
        let threshold = self.values_of(threshold)?;
        let slope = node.slope.map(|slope| self.values_of(slope)).transpose()?;
        // Neither form below is faster for every threshold: the short one needs thresholds that
        // are not negative at any level.
        let mut is_positive =
            threshold.iter().chain(slope.unwrap_or_default()).all(|value| *value >= 0.0);
        let limit = match (slope, self.level.clone()) {
            (None, _) => self.out.per_channel(threshold),
            (Some(slope), Level::Fixed(level)) => {
                let both = threshold.iter().zip(slope);
                let sums: Vec<f32> = both.map(|(t, slope)| t + slope * level as f32).collect();
                is_positive = sums.iter().all(|value| *value >= 0.0);
                self.out.per_channel(&sums)
            }
            (Some(slope), Level::Value(level)) => {
                let slope = self.out.per_channel(slope);
                let threshold = self.out.per_channel(threshold);
                let more = self.out.add("Mul", &[&slope, &level], Vec::new());
                self.out.add("Add", &[&threshold, &more], Vec::new())
            }
        };
        if is_positive {
            let above = self.out.add("Sub", &[&x, &limit], Vec::new());
            let above = self.out.add("Relu", &[&above], Vec::new());
            let sum = self.out.add("Add", &[&x, &limit], Vec::new());
            let below = self.out.add("Neg", &[&sum], Vec::new());
            let below = self.out.add("Relu", &[&below], Vec::new());
            return Ok(self.out.add("Sub", &[&above, &below], Vec::new()));
        }
        let zero = self.out.scalar(0.0);
        let size = self.out.add("Abs", &[&x], Vec::new());
        let is_above = self.out.add("Greater", &[&size, &limit], Vec::new());
        let sign = self.out.add("Sign", &[&x], Vec::new());
        let shift = self.out.add("Mul", &[&sign, &limit], Vec::new());
        let shifted = self.out.add("Sub", &[&x, &shift], Vec::new());
        Ok(self.out.add("Where", &[&is_above, &shifted, &zero], Vec::new()))
    }

    pub(super) fn top_k(&mut self, node: &Node, spec: &TopKSpec) -> Result<Name> {
        let x = self.read(node, 0)?;
        let k = match spec.per_position {
            Some(each) if !self.fixed => self.kept(&x, each),
            _ => self.out.integers(&[spec.kept().of(node.dims) as i64]),
        };
        let flat = self.out.add("Flatten", &[&x], Vec::new());
        // Equal elements are taken in the order of their positions.
        let [largest, positions] = self.out.add_two("TopK", &[&flat, &k], Vec::new());
        let zeros = self.out.zeros_like(&flat);
        let axis = vec![("axis", Value::Int(1))];
        let kept = self.out.add("ScatterElements", &[&zeros, &positions, &largest], axis);
        let shape = self.out.shape_of(&x);
        Ok(self.out.add("Reshape", &[&kept, &shape], Vec::new()))
    }

    /// The number of elements that are kept of maps of a size known at run time, as
    /// [`crate::model::Selection::kept`] defines it: `each` for a position, rounded, at least one
    /// and at most all.
    fn kept(&mut self, x: &str, each: f64) -> Name {
        let size = self.out.add("Shape", &[x], vec![("start", Value::Int(1))]);
        let area = self.out.add("Shape", &[x], vec![("start", Value::Int(2))]);
        let keep = || vec![("keepdims", Value::Int(1))];
        let all = self.out.add("ReduceProd", &[&size], keep());
        let area = self.out.add("ReduceProd", &[&area], keep());
        let double = vec![("to", Value::Int(ElementType::Double as i64))];
        let area = self.out.add("Cast", &[&area], double);
        let (each, half) = (self.out.double(each), self.out.double(0.5));
        let count = self.out.add("Mul", &[&area, &each], Vec::new());
        let count = self.out.add("Add", &[&count, &half], Vec::new());
        let count = self.out.add("Floor", &[&count], Vec::new());
        let whole = vec![("to", Value::Int(ElementType::Int64 as i64))];
        let count = self.out.add("Cast", &[&count], whole);
        let one = self.out.integers(&[1]);
        let count = self.out.add("Max", &[&count, &one], Vec::new());
        self.out.add("Min", &[&count, &all], Vec::new())
    }

    /// The selection at inference: the elements above the running threshold.
    pub(super) fn batch_top_k(&mut self, node: &Node) -> Result<Name> {
        let x = self.read(node, 0)?;
        let state = node.state.ok_or_else(|| Error::usage("it has no threshold"))?;
        let state = &self.graph.states[state];
        let threshold = self.tensor(&state.name, &state.shape)?;
        let (limit, zero) = (self.out.floats(&[1], threshold), self.out.scalar(0.0));
        let reaches = self.out.add("GreaterOrEqual", &[&x, &limit], Vec::new());
        let is_positive = self.out.add("Greater", &[&x, &zero], Vec::new());
        let is_kept = self.out.add("And", &[&reaches, &is_positive], Vec::new());
        Ok(self.out.add("Where", &[&is_kept, &x, &zero], Vec::new()))
    }

    pub(super) fn spatial_wta(&mut self, node: &Node) -> Result<Name> {
        let x = self.read(node, 0)?;
        // 0 keeps the size of an axis, −1 is the rest.
        let rows = self.out.integers(&[0, 0, -1]);
        let maps = self.out.add("Reshape", &[&x, &rows], Vec::new());
        // The first of equal elements wins.
        let last = vec![("axis", Value::Int(2)), ("keepdims", Value::Int(1))];
        let winners = self.out.add("ArgMax", &[&maps], last);
        let axis = || vec![("axis", Value::Int(2))];
        let largest = self.out.add("GatherElements", &[&maps, &winners], axis());
        let zeros = self.out.zeros_like(&maps);
        let kept = self.out.add("ScatterElements", &[&zeros, &winners, &largest], axis());
        let shape = self.out.shape_of(&x);
        Ok(self.out.add("Reshape", &[&kept, &shape], Vec::new()))
    }
}
