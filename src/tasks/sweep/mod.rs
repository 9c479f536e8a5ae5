//! Reconstruction against sparsity: models that differ in their sparsity rule and its strength
//! alone.

use serde::{Deserialize, Serialize};

use crate::report::chart::{Axis, Chart, Look, Series};

/// What one model of a sweep came to, on the validation images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its rule.
    pub rule: String,
    /// λ, β, k or rate.
    pub strength: f64,
    /// Mean number of elements ≠ 0.
    pub l0: f64,
    /// Mean ‖x − x̂‖².
    pub sum_squares: f64,
    /// Mean PSNR in dB; none where what is reconstructed is no image.
    pub psnr: Option<f64>,
    /// 1 − Σ‖x − x̂‖² / Σ‖x − mean‖².
    pub explained_variance: f64,
    /// Share of units that never fired.
    pub dead_share: f64,
    /// Seconds that its training took, as far as this process did it.
    pub seconds: f64,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sweep {
    /// In the order of the rules and strengths.
    pub members: Vec<Member>,
}

impl Sweep {
    /// The rules' names, in order.
    pub fn rules(&self) -> Vec<&str> {
        let mut rules: Vec<&str> = self.members.iter().map(|member| member.rule.as_str()).collect();
        rules.dedup();
        rules
    }

    /// L0 and explained variance of a rule's models, from few units to many.
    fn curve(&self, rule: &str) -> Vec<(f64, f64)> {
        let of = self.members.iter().filter(|member| member.rule == rule && member.l0 > 0.0);
        let mut points: Vec<(f64, f64)> =
            of.map(|member| (member.l0, member.explained_variance)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    }

    /// Explained variance over L0.
    pub fn chart(&self) -> Chart {
        let series = |rule: &&str| Series {
            name: (*rule).to_owned(),
            points: self.curve(rule),
            spread: Vec::new(),
            look: Look::Dots,
        };
        Chart {
            title: "Reconstruction against sparsity, validation images".to_owned(),
            x: Axis {
                label: "L0: non-zero elements of the code".to_owned(),
                log: true,
                include: None,
            },
            y: Axis { label: "explained variance".to_owned(), ..Axis::default() },
            series: self.rules().iter().map(series).collect(),
            ..Chart::default()
        }
    }

    /// Explained variance of a rule at an L0, between the two models around it, along the logarithm
    /// of L0; none where none is on either side.
    pub fn at(&self, rule: &str, l0: f64) -> Option<f64> {
        let curve = self.curve(rule);
        if let Some((_, found)) = curve.iter().find(|(at, _)| (at - l0).abs() <= 1e-9 * l0) {
            return Some(*found);
        }
        let after = curve.iter().position(|(at, _)| *at > l0).filter(|after| *after > 0)?;
        let ((a, low), (b, high)) = (curve[after - 1], curve[after]);
        let share = (l0 / a).ln() / (b / a).ln();
        Some(low + share * (high - low))
    }

    /// Powers of two that two rules or more reach, or one where there is no other.
    pub fn matched(&self) -> Vec<f64> {
        let rules = self.rules();
        let wanted = rules.len().min(2);
        let reached = |l0: &f64| {
            rules.iter().filter(|rule| self.at(rule, *l0).is_some()).count() >= wanted.max(1)
        };
        (0..24).map(|power| f64::from(1_u32 << power)).filter(reached).collect()
    }

    /// A table, tabs between its columns.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "rule\tstrength\tl0\tsum_squares\tpsnr\texplained_variance\tdead_share\tseconds\n",
        );
        for m in &self.members {
            let psnr = m.psnr.map_or(String::new(), |psnr| format!("{psnr:.3}"));
            text += &format!(
                "{}\t{}\t{:.3}\t{:.4}\t{psnr}\t{:.5}\t{:.5}\t{:.1}\n",
                m.rule,
                m.strength,
                m.l0,
                m.sum_squares,
                m.explained_variance,
                m.dead_share,
                m.seconds
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(rule: &str, l0: f64, explained_variance: f64) -> Member {
        let (strength, psnr) = (1.0, Some(20.0));
        Member {
            rule: rule.to_owned(),
            strength,
            l0,
            sum_squares: 1.0,
            psnr,
            explained_variance,
            dead_share: 0.0,
            seconds: 1.0,
        }
    }

    #[test]
    fn rules_are_compared_where_both_reach() {
        let members = vec![
            member("l1", 40.0, 0.9),
            member("l1", 10.0, 0.5),
            member("top_k", 8.0, 0.6),
            member("top_k", 32.0, 0.8),
        ];
        let sweep = Sweep { members };
        assert_eq!(sweep.matched(), [16.0, 32.0]);
        assert!((sweep.at("top_k", 16.0).unwrap() - 0.7).abs() < 1e-12);
        assert_eq!(
            (sweep.at("top_k", 32.0), sweep.at("l1", 8.0), sweep.at("l1", 64.0)),
            (Some(0.8), None, None)
        );
        assert!((sweep.at("l1", 20.0).unwrap() - 0.7).abs() < 1e-12);
        assert_eq!(sweep.chart().series[0].points, [(10.0, 0.5), (40.0, 0.9)]);
        assert_eq!(sweep.table().lines().count(), 5);
    }
}
