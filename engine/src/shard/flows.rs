//! The flows of a shard's mail, each once: deliveries share what says whose they are.

use std::sync::Arc;

use crate::base::map::Map;
use crate::model::flow::Flow;
use crate::wire::envelope::Labels;

/// Flows a shard remembers. Beyond, it forgets them all and makes them again as mail comes: a client
/// that invents campaigns costs it this much, and what its deliveries hold.
const KNOWN_FLOWS_MAX: usize = 10_000;

/// Flows by their stored form.
#[derive(Default)]
pub(super) struct Flows {
    /// The flow that says nothing: that of most mail where nobody names any.
    none: Arc<Flow>,
    known: Map<Box<str>, Arc<Flow>>,
    /// Reused.
    text: String,
}

impl Flows {
    /// The flow of a stored envelope, whose labels were checked with it.
    pub(super) fn of_labels(&mut self, labels: &str) -> Arc<Flow> {
        if labels.is_empty() {
            return Arc::clone(&self.none);
        }
        if let Some(flow) = self.known.get(labels) {
            return Arc::clone(flow);
        }
        if self.known.len() >= KNOWN_FLOWS_MAX {
            self.known.clear();
        }
        let flow = Arc::new(Labels::parse(labels).unwrap_or_default().to_flow());
        self.known.insert(labels.into(), Arc::clone(&flow));
        flow
    }

    /// The same flow as others here have it, for one that comes from elsewhere.
    pub(super) fn shared(&mut self, flow: &Flow) -> Arc<Flow> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        Labels::from(flow).write(&mut text);
        let shared = self.of_labels(&text);
        self.text = text;
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_flows_are_one() {
        let mut flows = Flows::default();
        let acme = flows.of_labels("bulk\n\nacme\n");
        assert_eq!(&*acme.tenant, "acme");
        assert!(Arc::ptr_eq(&acme, &flows.of_labels("bulk\n\nacme\n")));
        assert!(Arc::ptr_eq(&acme, &flows.shared(&Flow::clone(&acme))));
        let none = flows.of_labels("");
        assert_eq!(*none, Flow::default());
        assert!(Arc::ptr_eq(&none, &flows.shared(&Flow::default())));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut flows = Flows::default();
        for number in 0..=KNOWN_FLOWS_MAX {
            let flow = flows.of_labels(&format!("bulk\n\n\n{number}"));
            assert_eq!(*flow.campaign, *number.to_string());
        }
        assert_eq!(flows.known.len(), 1);
    }
}
