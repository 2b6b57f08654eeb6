//! Which tables there are to use: a table whose emptying went unanswered is given up for a new one after a while.
//!
//! What was never answered may still happen, so a checker must accept an empty table for ever. It is used a little longer
//! all the same: how the database copes with a definition that was broken off shows only there.

use parking_lot::Mutex;

/// So often a table is used after a definition of it went unanswered.
const LAST_USES: u32 = 12;

#[derive(Clone, Copy)]
struct Place {
    table: usize,
    is_created: bool,
    uses_left: Option<u32>,
}

/// Numbers of tables, a few of which are in use.
pub(super) struct Names {
    places: Mutex<Vec<Place>>,
}

impl Names {
    /// Tables `0..tables`, which are there.
    pub(super) fn new(tables: usize) -> Self {
        let place = |table| Place {
            table,
            is_created: true,
            uses_left: None,
        };
        Self {
            places: Mutex::new((0..tables).map(place).collect()),
        }
    }

    /// The table at `place`, and whether it was created.
    pub(super) fn take(&self, place: usize) -> (usize, bool) {
        let mut places = self.places.lock();
        let tables = places.len();
        let place = &mut places[place];
        match &mut place.uses_left {
            Some(0) => {
                *place = Place {
                    table: place.table + tables,
                    is_created: false,
                    uses_left: None,
                };
            }
            Some(uses) => *uses -= 1,
            None => {}
        }
        (place.table, place.is_created)
    }

    /// The table was created.
    pub(super) fn created(&self, table: usize) {
        for place in self.places.lock().iter_mut().filter(|place| place.table == table) {
            place.is_created = true;
        }
    }

    /// Nobody knows what became of a definition of the table.
    pub(super) fn doubt(&self, table: usize) {
        for place in self.places.lock().iter_mut().filter(|place| place.table == table) {
            place.uses_left.get_or_insert(LAST_USES);
        }
    }

    /// All tables that were ever in use.
    pub(super) fn all(&self) -> Vec<usize> {
        let places = self.places.lock();
        let mut all: Vec<usize> = (0..places.len())
            .flat_map(|place| (place..=places[place].table).step_by(places.len()))
            .collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_in_doubt_is_given_up_after_a_while() {
        let names = Names::new(2);
        names.doubt(1);
        for _ in 0..LAST_USES {
            assert_eq!(names.take(1), (1, true));
        }
        assert_eq!(names.take(1), (3, false));
        names.doubt(1);
        names.created(3);
        assert_eq!(names.take(1), (3, true));
        assert_eq!(names.take(0), (0, true));
        assert_eq!(names.all(), [0, 1, 3]);
    }
}
