//! Doubly linked lists whose links lie inside the things listed: every move is O(1), none allocates.

/// No neighbour, no thing.
pub(super) const NONE: u32 = u32::MAX;

/// The neighbours of one thing in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub(super) prev: u32,
    pub(super) next: u32,
}

/// Where the links of a thing are found by its number.
pub(super) trait Linked {
    fn links(&mut self, id: u32) -> &mut Links;
}

/// First, last and how many; the order itself lies in the links.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl Links {
    pub(super) const ALONE: Self = Self { prev: NONE, next: NONE };
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE, len: 0 };

    pub(super) fn front(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub(super) fn back(&self) -> Option<u32> {
        (self.tail != NONE).then_some(self.tail)
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push_back(&mut self, arena: &mut impl Linked, id: u32) {
        self.insert_after(arena, self.tail, id);
    }

    /// Puts `id` behind `prev`, or in front of all if `prev` is [`NONE`].
    pub(super) fn insert_after(&mut self, arena: &mut impl Linked, prev: u32, id: u32) {
        let next = if prev == NONE { self.head } else { arena.links(prev).next };
        *arena.links(id) = Links { prev, next };
        match prev {
            NONE => self.head = id,
            prev => arena.links(prev).next = id,
        }
        match next {
            NONE => self.tail = id,
            next => arena.links(next).prev = id,
        }
        self.len += 1;
    }

    pub(super) fn remove(&mut self, arena: &mut impl Linked, id: u32) {
        let Links { prev, next } = std::mem::replace(arena.links(id), Links::ALONE);
        match prev {
            NONE => self.head = next,
            prev => arena.links(prev).next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => arena.links(next).prev = prev,
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Arena(Vec<Links>);

    impl Linked for Arena {
        fn links(&mut self, id: u32) -> &mut Links {
            &mut self.0[id as usize]
        }
    }

    #[test]
    fn order_survives_removal_anywhere() {
        let mut arena = Arena(vec![Links::ALONE; 6]);
        let mut list = List::EMPTY;
        for id in 0..5 {
            list.push_back(&mut arena, id);
        }
        list.insert_after(&mut arena, NONE, 5);
        for id in [5, 2, 4] {
            list.remove(&mut arena, id);
        }
        list.insert_after(&mut arena, 0, 2);
        let mut order = Vec::new();
        while let Some(id) = list.front() {
            list.remove(&mut arena, id);
            order.push(id);
        }
        assert_eq!(order, [0, 2, 1, 3]);
        assert!(list.is_empty() && list.back().is_none());
    }
}
