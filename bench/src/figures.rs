//! Figures of repeated runs, always shown as minimum / median / maximum.

/// A handful of measurements of the same thing.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => self.0[middle],
            _ => f64::midpoint(self.0[middle - 1], self.0[middle]),
        }
    }

    pub(crate) fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// `min / median / max` with so many digits behind the point.
    pub(crate) fn show(&self, digits: usize) -> String {
        let (Some(least), Some(most)) = (self.0.first(), self.0.last()) else {
            return "-".to_owned();
        };
        format!("{least:.digits$} / {:.digits$} / {most:.digits$}", self.median())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_show_their_spread() {
        let mut figures = Figures::default();
        for value in [3.0, 1.0, 2.0, 10.0] {
            figures.push(value);
        }
        assert_eq!(figures.show(1), "1.0 / 2.5 / 10.0");
        assert_eq!(Figures::default().show(1), "-");
    }
}
