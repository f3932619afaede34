//! Courses: a domain of a site with one flow's mail, interned, so that an entry carries a number
//! instead of names.

use std::sync::Arc;

use slab::Slab;

use super::entry::Wait;
use super::list::NONE;
use crate::base::index::Index;
use crate::model::admin::Amounts;
use crate::model::flow::Flow;

/// Mail of one flow for one domain, all of which goes to one site. As long as a cache line, and in one.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Course {
    pub(super) domain: Arc<str>,
    pub(super) flow: Arc<Flow>,
    pub(super) site: u32,
    pub(super) leaf: u32,
    pub(super) policy: usize,
    /// Nobody wants its mail any more. Then it is retired: what comes later gets another course.
    pub(super) is_cancelled: bool,
    /// It has lost its name.
    is_retired: bool,
    /// Deliveries that carry this number.
    pub(super) live: u32,
    /// Of these, those that wait.
    pub(super) waits: Waits,
}

/// Deliveries that wait, by how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) ready: u32,
    pub(super) deferred: u32,
}

impl Waits {
    pub(super) fn of(&mut self, wait: Wait) -> &mut u32 {
        match wait {
            Wait::Ready(_) => &mut self.ready,
            Wait::Retry(_) | Wait::Restored(_) => &mut self.deferred,
        }
    }

    pub(super) fn sum(self) -> u32 {
        self.ready + self.deferred
    }
}

impl Course {
    /// One that no delivery carries yet.
    pub(super) fn new(
        (site, policy, leaf): (u32, usize, u32),
        domain: Arc<str>,
        flow: Arc<Flow>,
    ) -> Self {
        let (is_cancelled, is_retired) = (false, false);
        let waits = Waits::default();
        Self { domain, flow, site, leaf, policy, is_cancelled, is_retired, live: 0, waits }
    }

    fn name(&self) -> Name<'_> {
        (self.site, &self.domain, &self.flow)
    }

    /// Deliveries of it that somebody still wants, by where they are.
    pub(super) fn amounts(&self) -> Amounts {
        let wanted = if self.is_cancelled { Waits::default() } else { self.waits };
        Amounts {
            ready: u64::from(wanted.ready),
            deferred: u64::from(wanted.deferred),
            in_flight: u64::from(self.live.saturating_sub(self.waits.sum())),
        }
    }
}

/// What names a course. Shared names are the same where they are at the same place, without a look at them.
type Name<'a> = (u32, &'a Arc<str>, &'a Arc<Flow>);

/// All courses that have a delivery here, and of each site without mail the one that had the last: most
/// mail comes a message at a time, and the next will be of the same flow. Such a course rests.
#[derive(Debug, Default)]
pub(super) struct Courses {
    courses: Slab<Course>,
    numbers: Index,
}

impl Courses {
    /// Whether a course, which has its name still, is that of a domain's flow at a site.
    pub(super) fn is(&self, number: u32, site: u32, domain: &Arc<str>, flow: &Arc<Flow>) -> bool {
        self[number].name() == (site, domain, flow)
    }

    /// The number of a domain's flow at a site, if it has deliveries there.
    pub(super) fn find(&self, site: u32, domain: &Arc<str>, flow: &Arc<Flow>) -> Option<u32> {
        self.numbers.find(&(site, domain, flow), |number| self[number].name())
    }

    /// A number for one new at its site.
    pub(super) fn add(&mut self, course: Course) -> u32 {
        let number = u32::try_from(self.courses.insert(course)).unwrap_or(NONE);
        assert!(number != NONE, "courses are fewer than deliveries");
        self.numbers.insert(number, |number| self.courses[number as usize].name());
        number
    }

    /// One more delivery carries `number`.
    pub(super) fn hold(&mut self, number: u32) {
        self.courses[number as usize].live += 1;
    }

    /// One delivery fewer; whether that was its last.
    pub(super) fn release(&mut self, number: u32) -> bool {
        let course = &mut self.courses[number as usize];
        course.live -= 1;
        course.live == 0
    }

    pub(super) fn remove(&mut self, number: u32) -> Course {
        self.retire(number);
        self.courses.remove(number as usize)
    }

    /// Whether there is none, not even at rest.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.courses.is_empty()
    }

    /// Takes a course its name: what comes for it from now on gets a new one.
    pub(super) fn retire(&mut self, number: u32) {
        self.numbers.remove(&self.courses[number as usize].name(), number);
        self.courses[number as usize].is_retired = true;
    }

    pub(super) fn is_retired(&self, number: u32) -> bool {
        self[number].is_retired
    }

    /// All that do not rest, for the rare questions that may look at all: a reload, an operator's hold.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Course> {
        self.courses.iter_mut().map(|(_, course)| course).filter(|course| course.live > 0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Course> {
        self.numbered().map(|(_, course)| course)
    }

    /// The same with their numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u32, &Course)> {
        let busy = self.courses.iter().filter(|(_, course)| course.live > 0);
        busy.filter_map(|(key, course)| Some((u32::try_from(key).ok()?, course)))
    }
}

impl std::ops::IndexMut<u32> for Courses {
    fn index_mut(&mut self, number: u32) -> &mut Course {
        &mut self.courses[number as usize]
    }
}

impl std::ops::Index<u32> for Courses {
    type Output = Course;

    fn index(&self, number: u32) -> &Course {
        &self.courses[number as usize]
    }
}
