//! A hierarchical timing wheel: inserting and firing cost the same however many timers there are.

use super::time::Mono;

/// One tick is 2^20 ns, about a millisecond: timers fire at most that much late, never early.
const TICK_SHIFT: u32 = 20;
const LEVEL_BITS: u32 = 8;
const LEVEL_SLOTS: usize = 1 << LEVEL_BITS;
/// A level's slots as bits of words.
const WORDS: usize = LEVEL_SLOTS / 64;
/// Four levels reach 2^32 ticks, about 52 days; later timers wait in the last slot and go round.
const LEVELS: usize = 4;
/// How far each level's slots are apart, as powers of two of a tick.
const LEVEL_SHIFT: [u32; LEVELS] = [0, LEVEL_BITS, 2 * LEVEL_BITS, 3 * LEVEL_BITS];
/// The farthest a timer can be told apart, in ticks.
const REACH: u64 = (1 << (LEVEL_BITS * 4)) - (1 << (LEVEL_BITS * 3)) - 1;

/// Timers that each carry a small value. There is no removal: the owner checks, when a timer
/// fires, whether it is still wanted (at most one timer per thing keeps that cheap).
#[derive(Debug)]
pub struct Wheel<T> {
    /// `levels[l][s]` holds the timers due in slot `s` of level `l`.
    levels: Vec<Vec<Vec<(Mono, T)>>>,
    /// The tick up to which everything has fired.
    tick: u64,
    len: usize,
    /// One bit per slot that holds something.
    occupied: [[u64; WORDS]; LEVELS],
}

impl<T> Wheel<T> {
    #[must_use]
    pub fn new(start: Mono) -> Self {
        let level = || (0..LEVEL_SLOTS).map(|_| Vec::new()).collect();
        Self {
            levels: (0..LEVELS).map(|_| level()).collect(),
            tick: start.0 >> TICK_SHIFT,
            len: 0,
            occupied: [[0; WORDS]; LEVELS],
        }
    }

    /// Sets a timer; a moment that has passed fires at the next [`Wheel::advance`].
    pub fn insert(&mut self, at: Mono, value: T) {
        self.len += 1;
        self.place(at, self.tick + 1, value);
    }

    /// Moves everything due at `now` into `fired`.
    pub fn advance(&mut self, now: Mono, fired: &mut Vec<T>) {
        let target = now.0 >> TICK_SHIFT;
        while self.tick < target {
            if self.len == 0 {
                self.tick = target;
                return;
            }
            self.tick = self.next_busy_tick().min(target);
            self.cascade();
            self.fire(fired);
        }
    }

    /// The moment by which [`Wheel::advance`] should be called next; `None` without timers.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        (self.len > 0).then(|| Mono(self.next_busy_tick() << TICK_SHIFT))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rounds up, so that a timer never fires early; `earliest` is the first tick still to fire.
    fn place(&mut self, at: Mono, earliest: u64, value: T) {
        let due = at.0.div_ceil(1 << TICK_SHIFT).clamp(earliest, self.tick + REACH);
        let level = self.level_for(due);
        let slot = slot_of(due, level);
        self.occupied[level][slot / 64] |= 1 << (slot % 64);
        self.levels[level][slot].push((at, value));
    }

    /// The lowest level whose span still tells `due` and the present tick apart.
    fn level_for(&self, due: u64) -> usize {
        let apart = |shift: u32| (due >> shift) - (self.tick >> shift);
        LEVEL_SHIFT
            .iter()
            .position(|shift| apart(*shift) < LEVEL_SLOTS as u64)
            .unwrap_or(LEVELS - 1)
    }

    /// The first tick after the present one at which some slot is due or must be dealt out.
    fn next_busy_tick(&self) -> u64 {
        (0..LEVELS).filter_map(|level| self.next_busy_in(level)).min().unwrap_or(u64::MAX)
    }

    fn next_busy_in(&self, level: usize) -> Option<u64> {
        let present = self.tick >> LEVEL_SHIFT[level];
        let ahead = steps_to_set(&self.occupied[level], slot_of(self.tick, level))?;
        Some((present + ahead) << LEVEL_SHIFT[level])
    }

    /// Deals the slots of higher levels that begin at this tick out to lower ones.
    fn cascade(&mut self) {
        for level in (1..LEVELS).rev() {
            let shift = LEVEL_SHIFT[level];
            if self.tick & ((1 << shift) - 1) != 0 {
                continue;
            }
            for (at, value) in self.empty(level, slot_of(self.tick, level)) {
                self.place(at, self.tick, value);
            }
        }
    }

    fn fire(&mut self, fired: &mut Vec<T>) {
        let due = self.empty(0, slot_of(self.tick, 0));
        self.len -= due.len();
        fired.extend(due.into_iter().map(|(_, value)| value));
    }

    fn empty(&mut self, level: usize, slot: usize) -> Vec<(Mono, T)> {
        self.occupied[level][slot / 64] &= !(1 << (slot % 64));
        std::mem::take(&mut self.levels[level][slot])
    }
}

/// How many steps behind `start` the next set bit of a ring of bits is, at least one.
fn steps_to_set(bits: &[u64; WORDS], start: usize) -> Option<u64> {
    let (word, bit) = (start / 64, start % 64);
    // The rest of the first word, the words in turn, and the first word's beginning again.
    let rest = bits[word] & (u64::MAX << bit) << 1;
    let in_turn = (0..=WORDS).map(|step| match step {
        0 => rest,
        _ => bits[(word + step) % WORDS],
    });
    let (step, found) = in_turn.enumerate().find(|(_, found)| *found != 0)?;
    let position = 64 * (word + step) as u64 + u64::from(found.trailing_zeros());
    Some(position - start as u64)
}

fn slot_of(tick: u64, level: usize) -> usize {
    usize::try_from(tick >> LEVEL_SHIFT[level]).unwrap_or(0) % LEVEL_SLOTS
}

#[cfg(test)]
mod tests {
    use super::super::prng::Prng;
    use super::*;

    const MS: u64 = 1_000_000;

    /// Against a sorted list: every timer fires once, not early, and within two ticks.
    #[test]
    fn timers_fire_once_and_in_time() {
        let mut prng = Prng::new(3);
        let start = 77_777 * MS;
        let mut wheel = Wheel::new(Mono(start));
        let mut expected: Vec<u64> = Vec::new();
        let (mut now, mut fired_total) = (start, 0);
        for _ in 0..3000 {
            let reach = [10, 1_000, 400_000, 90_000_000][usize::try_from(prng.below(4)).unwrap()];
            let at = now + prng.below(reach * MS);
            wheel.insert(Mono(at), at);
            expected.push(at);
            now += prng.below(50_000 * MS);
            fired_total += fire_and_check(&mut wheel, now, &mut expected);
        }
        let end = now + 100_000_000 * MS;
        fired_total += fire_and_check(&mut wheel, end, &mut expected);
        assert_eq!(fired_total, 3000);
        assert!(wheel.is_empty() && expected.is_empty());
    }

    fn fire_and_check(wheel: &mut Wheel<u64>, now: u64, expected: &mut Vec<u64>) -> usize {
        let mut fired = Vec::new();
        wheel.advance(Mono(now), &mut fired);
        for at in &fired {
            assert!(*at <= now, "fired {} ns early", at - now);
            let index = expected.iter().position(|other| other == at).unwrap();
            expected.swap_remove(index);
        }
        let late = 2 << TICK_SHIFT;
        assert!(expected.iter().all(|at| at + late >= now), "a timer was left behind");
        fired.len()
    }

    #[test]
    fn the_next_wake_up_is_never_after_a_timer_is_due() {
        let mut wheel = Wheel::new(Mono(0));
        assert_eq!(wheel.next(), None);
        wheel.insert(Mono(500 * MS), ());
        let mut fired = Vec::new();
        let mut wakes = 0;
        while fired.is_empty() {
            let next = wheel.next().unwrap();
            wheel.advance(next, &mut fired);
            wakes += 1;
            assert!(next <= Mono(502 * MS) && wakes < 10);
        }
    }
}
