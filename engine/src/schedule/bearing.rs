//! Domains and flows of a site's mail, interned: an entry carries a number instead of names.

use std::sync::Arc;

use slab::Slab;

use super::list::NONE;
use crate::base::map::Map;
use crate::model::flow::Flow;

/// Mail of one flow for one domain, which goes to one site.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) domain: Arc<str>,
    pub(super) flow: Arc<Flow>,
    pub(super) site: u32,
    pub(super) policy: usize,
    /// Deliveries that carry this number.
    live: u32,
}

/// All that have a delivery here.
#[derive(Debug, Default)]
pub(super) struct Bearings {
    courses: Slab<Course>,
    numbers: Map<(u32, Arc<str>, Arc<Flow>), u32>,
}

impl Bearings {
    /// The number of a flow's mail for a domain at a site, if it has deliveries there.
    pub(super) fn find(&self, site: u32, domain: &Arc<str>, flow: &Arc<Flow>) -> Option<u32> {
        self.numbers.get(&(site, Arc::clone(domain), Arc::clone(flow))).copied()
    }

    /// A number for one new at this site.
    pub(super) fn add(
        &mut self,
        site: u32,
        domain: Arc<str>,
        flow: Arc<Flow>,
        policy: usize,
    ) -> u32 {
        let key = (site, Arc::clone(&domain), Arc::clone(&flow));
        let course = Course { domain, flow, site, policy, live: 0 };
        let number = u32::try_from(self.courses.insert(course)).unwrap_or(NONE);
        assert!(number != NONE, "courses are fewer than deliveries");
        self.numbers.insert(key, number);
        number
    }

    /// One more delivery carries `number`.
    pub(super) fn hold(&mut self, number: u32) {
        self.courses[number as usize].live += 1;
    }

    /// One delivery fewer; hands the course back if that was its last.
    pub(super) fn release(&mut self, number: u32) -> Option<Course> {
        let course = &mut self.courses[number as usize];
        course.live -= 1;
        if course.live > 0 {
            return None;
        }
        let course = self.courses.remove(number as usize);
        let key = (course.site, Arc::clone(&course.domain), Arc::clone(&course.flow));
        self.numbers.remove(&key);
        Some(course)
    }

    /// All of them, for the rare questions that may look at all: a reload, an operator's explain.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Course> {
        self.courses.iter_mut().map(|(_, course)| course)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Course> {
        self.courses.iter().map(|(_, course)| course)
    }
}

impl std::ops::Index<u32> for Bearings {
    type Output = Course;

    fn index(&self, number: u32) -> &Course {
        &self.courses[number as usize]
    }
}
