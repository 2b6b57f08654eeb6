//! What roles log, and the points that they reach, as events of the trace: so the trace tells what became of a fault.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use madsim::task::NodeId;
use neorunbase_world::fault;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::trace::{Trace, trace};
use crate::world::now_nanos;

/// A node's mark is not repeated within so much simulated time: what happens all the time would hide all else.
const MARK_INTERVAL_NANOS: u64 = 200_000_000;

struct Observed {
    trace: Trace,
    nodes: BTreeMap<NodeId, String>,
    /// When each node's mark was made last.
    marks: BTreeMap<(NodeId, &'static str), u64>,
}

thread_local! {
    /// A simulation is one thread.
    static OBSERVED: RefCell<Option<Observed>> = const { RefCell::new(None) };
}

/// From now on roles are observed for `trace`.
pub fn begin(trace: &Trace) {
    let observed = Observed {
        trace: trace.clone(),
        nodes: BTreeMap::new(),
        marks: BTreeMap::new(),
    };
    OBSERVED.with_borrow_mut(|slot| *slot = Some(observed));
    fault::observe(reached);
}

/// Names the node that calls.
pub fn this_node_is(name: &str) {
    OBSERVED.with_borrow_mut(|observed| {
        if let Some(observed) = observed {
            observed.nodes.insert(madsim::plugin::node(), name.to_owned());
        }
    });
}

impl Observed {
    fn node(&self) -> &str {
        self.nodes
            .get(&madsim::plugin::node())
            .map_or("clients", String::as_str)
    }
}

fn is_simulating() -> bool {
    madsim::runtime::Handle::try_current().is_ok()
}

fn reached(point: &'static str) {
    if !is_simulating() {
        return;
    }
    OBSERVED.with_borrow_mut(|observed| {
        let Some(observed) = observed else { return };
        let now = now_nanos();
        let last = observed.marks.get(&(madsim::plugin::node(), point));
        if last.is_none_or(|last| now >= last + MARK_INTERVAL_NANOS) {
            observed.marks.insert((madsim::plugin::node(), point), now);
            trace!(observed.trace, "mark {} {point}", observed.node());
        }
    });
}

/// Takes over what is logged.
pub struct Logs;

impl<S: Subscriber> Layer<S> for Logs {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !is_simulating() {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let Line { message, fields } = line;
        OBSERVED.with_borrow(|observed| {
            let Some(observed) = observed else { return };
            let level = event.metadata().level();
            trace!(
                observed.trace,
                "log {} {level} {message}{fields}",
                observed.node()
            );
        });
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing into a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        // An event is one line of the trace.
        for text in [&mut self.message, &mut self.fields] {
            if text.contains('\n') {
                *text = text.replace('\n', " ");
            }
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
