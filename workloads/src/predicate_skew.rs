//! Teams of bounded size: a transaction counts the members of a team and adds one only if there is room. Two of them
//! may count at once and each add another row, so nothing but a validation of the *range* that was counted keeps the
//! bound (G2 with predicates: no row that either of them read is written by the other).

use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallResult, Client, number};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{Failure, Report, Step, Workload, conclude, create_table, judge};

/// Members that a team may have.
pub const LARGEST_TEAM: i64 = 3;
const TEAMS: i64 = 3;

/// What a transaction saw and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// The team.
    pub team: i64,
    /// Its members, if they were read.
    pub members: Option<Vec<i64>>,
    /// A member that was added.
    pub added: Option<i64>,
    /// A member that was removed.
    pub removed: Option<i64>,
}

/// The predicate write skew workload.
pub struct PredicateSkew {
    table: String,
    shards: Option<u32>,
    next_member: AtomicI64,
    history: History<Visit>,
}

impl PredicateSkew {
    /// Teams in `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            next_member: AtomicI64::new(1),
            history: History::default(),
        }
    }

    async fn members(&self, client: &Client, team: i64, by_index: bool) -> CallResult<Vec<i64>> {
        // An index cannot help with a sum, so that this reads the whole table.
        let column = if by_index { "team" } else { "team + 0" };
        let rows = client
            .rows(&format!("SELECT id FROM {} WHERE {column} = {team}", self.table))
            .await?;
        rows.iter().map(|row| number(row.first())).collect()
    }

    /// Fills in what was seen; the flag of an error tells whether it met the commit.
    async fn execute(
        &self,
        client: &Client,
        random: &mut SmallRng,
        visit: &mut Visit,
    ) -> Result<(), Failure> {
        let before = |error| (error, false);
        client
            .run("BEGIN ISOLATION LEVEL SERIALIZABLE")
            .await
            .map_err(before)?;
        let by_index = random.random_bool(0.7);
        let members = self.members(client, visit.team, by_index).await.map_err(before)?;
        visit.members = Some(members.clone());
        let table = &self.table;
        if (members.len() as i64) < LARGEST_TEAM {
            let member = self.next_member.fetch_add(1, Ordering::Relaxed);
            visit.added = Some(member);
            client
                .run(&format!(
                    "INSERT INTO {table} (id, team) VALUES ({member}, {})",
                    visit.team
                ))
                .await
                .map_err(before)?;
        } else if random.random_bool(0.6) {
            let member = members[random.random_range(0..members.len())];
            visit.removed = Some(member);
            client
                .run(&format!("DELETE FROM {table} WHERE id = {member}"))
                .await
                .map_err(before)?;
        }
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }
}

#[async_trait]
impl Workload for PredicateSkew {
    fn name(&self) -> &str {
        "predicate-skew"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        create_table(client, &self.table, "team bigint NOT NULL", self.shards).await?;
        let table = &self.table;
        client
            .run(&format!("CREATE INDEX ON {table} (team)"))
            .await
            .map(|_| ())
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let clock = client.world().clock.clone();
        let mut visit = Visit {
            team: random.random_range(0..TEAMS),
            ..Visit::default()
        };
        let invocation = self.history.invoke(&*clock, index, visit.clone());
        let result = self.execute(client, random, &mut visit).await;
        conclude(client, &self.history, invocation, visit, result).await
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        for team in 0..TEAMS {
            let members = self.members(client, team, team % 2 == 0).await?;
            let visit = Visit {
                team,
                members: Some(members),
                ..Visit::default()
            };
            let invocation = self.history.invoke(&*clock, FINAL_READER, visit.clone());
            self.history
                .complete(&*clock, invocation, visit, Outcome::Done, None);
        }
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, |records| {
            checker::predicate_skew::check(records, TEAMS as usize)
        })
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
