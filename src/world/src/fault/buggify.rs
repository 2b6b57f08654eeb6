//! Buggify: points in role code where a simulation forces a rare, but legal, turn of events.
//!
//! Two levels, as in FoundationDB: a quarter of the sites are active in a run, and those fire a quarter of the times that
//! they are passed. One run therefore sees few of them, often, instead of all of them all the time.

use std::time::Duration;

use crate::Clock;

/// Draws which sites are active and when they fire. Not from the simulation's own generator: a site more or less must not
/// change everything else that a seed stands for.
#[cfg(any(madsim, test))]
mod sites {
    use std::collections::BTreeMap;

    /// One in so many sites is active; one in so many passes of those fires.
    const ONE_IN: u64 = 4;

    #[derive(Default)]
    struct Site {
        is_active: bool,
        fired: u64,
    }

    /// All sites that were passed.
    pub struct Sites {
        seed: u64,
        /// State of the generator that decides when to fire.
        state: u64,
        is_on: bool,
        known: BTreeMap<&'static str, Site>,
    }

    /// The output function of SplitMix64.
    fn mix(mut value: u64) -> u64 {
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    impl Sites {
        pub const fn off() -> Self {
            Self {
                seed: 0,
                state: 0,
                is_on: false,
                known: BTreeMap::new(),
            }
        }

        pub fn turn_on(&mut self, seed: u64) {
            *self = Self {
                seed,
                state: mix(seed),
                is_on: true,
                known: BTreeMap::new(),
            };
        }

        pub fn turn_off(&mut self) {
            self.is_on = false;
        }

        fn draw(&mut self) -> u64 {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(self.state)
        }

        fn is_active(&self, name: &str) -> bool {
            let hash = name
                .bytes()
                .fold(self.seed, |hash, byte| mix(hash ^ u64::from(byte)));
            hash.is_multiple_of(ONE_IN)
        }

        pub fn fires(&mut self, name: &'static str) -> bool {
            if !self.is_on {
                return false;
            }
            let is_active = self.is_active(name);
            let site = self.known.entry(name).or_default();
            site.is_active = is_active;
            if !is_active || !self.draw().is_multiple_of(ONE_IN) {
                return false;
            }
            if let Some(site) = self.known.get_mut(name) {
                site.fired += 1;
            }
            true
        }

        /// A part of 2^16, drawn anew each time.
        #[cfg(madsim)]
        pub fn part(&mut self) -> u32 {
            (self.draw() % (1 << 16)) as u32
        }

        /// Active sites that were passed and how often each fired, and the number of all sites passed.
        pub fn fired(&self) -> (Vec<(&'static str, u64)>, usize) {
            let active = self.known.iter().filter(|(_, site)| site.is_active);
            let fired = active.map(|(name, site)| (*name, site.fired)).collect();
            (fired, self.known.len())
        }
    }
}

#[cfg(madsim)]
mod switches {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::sites::Sites;

    static SITES: Mutex<Sites> = Mutex::new(Sites::off());

    pub(super) fn sites() -> MutexGuard<'static, Sites> {
        SITES.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns buggify on, as `seed` says.
    pub fn turn_on_buggify(seed: u64) {
        sites().turn_on(seed);
    }

    /// No site fires from now on.
    pub fn turn_off_buggify() {
        sites().turn_off();
    }

    /// The active sites that were passed, how often each fired, and how many sites were passed in all.
    pub fn buggified() -> (Vec<(&'static str, u64)>, usize) {
        sites().fired()
    }

    /// Whether the site `name` fires now.
    pub fn buggify(name: &'static str) -> bool {
        sites().fires(name)
    }
}

#[cfg(madsim)]
pub use switches::{buggified, buggify, turn_off_buggify, turn_on_buggify};

/// Whether the site `name` fires now; never, outside the simulator.
#[cfg(not(madsim))]
#[inline(always)]
pub const fn buggify(_name: &'static str) -> bool {
    false
}

/// If the site `name` fires, lets up to `longest` pass before going on.
#[cfg(madsim)]
pub async fn dawdle(clock: &dyn Clock, name: &'static str, longest: Duration) {
    if buggify(name) {
        let part = switches::sites().part();
        clock.sleep(longest * part / (1 << 16)).await;
    }
}

/// If the site `name` fires, lets time pass before going on; never, outside the simulator.
#[cfg(not(madsim))]
#[inline(always)]
pub async fn dawdle(_clock: &dyn Clock, _name: &'static str, _longest: Duration) {}

#[cfg(test)]
mod tests {
    use super::sites::Sites;

    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    fn passes(seed: u64) -> Vec<bool> {
        let mut sites = Sites::off();
        sites.turn_on(seed);
        let names = NAMES.iter().cycle().take(800);
        names.map(|name| sites.fires(name)).collect()
    }

    #[test]
    fn a_quarter_of_the_sites_fires_a_quarter_of_the_times() {
        let (mut active, mut fired) = (0, 0);
        for seed in 0..400 {
            let mut sites = Sites::off();
            sites.turn_on(seed);
            for name in NAMES.iter().cycle().take(80) {
                sites.fires(name);
            }
            let (counts, passed) = sites.fired();
            assert_eq!(passed, NAMES.len());
            active += counts.len() as u64;
            fired += counts.iter().map(|(_, fired)| fired).sum::<u64>();
        }
        assert!((700..900).contains(&active), "{active} of 3200 are active");
        let expected = active * 10 / 4;
        assert!(
            fired.abs_diff(expected) < expected / 10,
            "{fired}, not {expected}"
        );
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(passes(7), passes(7));
        assert_ne!(passes(7), passes(8));
        let mut sites = Sites::off();
        assert!(!NAMES.iter().cycle().take(800).any(|name| sites.fires(name)));
        sites.turn_on(7);
        sites.turn_off();
        assert!(!NAMES.iter().cycle().take(800).any(|name| sites.fires(name)));
    }
}
