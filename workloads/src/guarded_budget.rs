//! Accounts with an allowance, and a ledger of what was spent. Who spends locks the account's row, adds the ledger up, and
//! enters an amount only if there is room. The row itself is never written, so nothing but its lock keeps two of them from
//! adding up the same ledger; they write to shards that know nothing of that lock. Readers hold it FOR SHARE and look twice.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{
    Failure, Report, Step, Workload, conclude, create_table, fill_table, judge, outcome_of,
};

/// Accounts, with ids from 0 on.
pub const ACCOUNTS: i64 = 4;
/// What the entries of an account may add up to.
pub const ALLOWANCE: i64 = 20;
const LARGEST_AMOUNT: i64 = 6;
/// The longest pause between two looks under one lock.
const LONGEST_LOOK_MS: u64 = 40;
/// The longest pause of somebody who has written and not committed.
const LONGEST_HESITATION_MS: u64 = 20;

/// An id that is used once, and an amount. Who takes entries away enters nothing of amount 0 instead, so that no ledger
/// comes back.
pub type Entry = (i64, i64);

/// How the account's row is locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// FOR UPDATE.
    Update,
    /// FOR NO KEY UPDATE.
    NoKeyUpdate,
    /// FOR SHARE.
    Share,
    /// Not at all: one look at the ledger.
    #[default]
    None,
}

impl Lock {
    /// As SQL has it; empty without.
    pub fn clause(self) -> &'static str {
        match self {
            Self::Update => "FOR UPDATE",
            Self::NoKeyUpdate => "FOR NO KEY UPDATE",
            Self::Share => "FOR SHARE",
            Self::None => "",
        }
    }
}

/// An account's ledger as one statement showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// When it was asked for.
    pub asked_micros: u64,
    /// When the answer was there.
    pub answered_micros: u64,
    /// By id.
    pub entries: Vec<Entry>,
}

/// What a transaction saw and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// The account.
    pub account: i64,
    /// How it was locked.
    pub lock: Lock,
    /// The locked row's allowance, if it was locked.
    pub allowance: Option<i64>,
    /// Its ledger, each time that it was read, before anything was written.
    pub readings: Vec<Reading>,
    /// What was entered.
    pub entered: Option<Entry>,
    /// Entries that were to be deleted, all of them seen.
    pub removed: Vec<i64>,
    /// Rows that the deletion affected.
    pub removed_rows: u64,
}

/// The guarded-budget workload.
pub struct GuardedBudget {
    table: String,
    shards: Option<u32>,
    next_id: AtomicI64,
    history: History<Visit>,
}

impl GuardedBudget {
    /// Accounts and ledger in tables whose names begin with `table`, each over `shards` shards where the server knows them.
    pub fn new(table: &str, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            next_id: AtomicI64::new(1),
            history: History::default(),
        }
    }

    fn ledger(&self) -> String {
        format!("{}_ledger", self.table)
    }

    /// Half of the accounts are in a table that is split otherwise than the ledger.
    fn accounts_of(&self, account: i64) -> String {
        match account % 2 {
            0 => format!("{}_accounts_apart", self.table),
            _ => format!("{}_accounts", self.table),
        }
    }

    /// A transaction is decided at the lowest of its shards. Tables that are split alike share them; what is split otherwise,
    /// and is created later, gets higher ones: the shard that knows only of the lock is then never the one that decides.
    fn shards_apart(&self) -> Option<u32> {
        self.shards.map(|shards| if shards == 2 { 3 } else { 2 })
    }

    async fn lock(&self, client: &Client, visit: &mut Visit, random: &mut SmallRng) -> CallResult<i64> {
        // Without a key it has to look on all shards of the accounts, which then all take part.
        let column = if random.random_bool(0.8) { "id" } else { "id + 0" };
        let query = format!(
            "SELECT allowance FROM {} WHERE {column} = {} {}",
            self.accounts_of(visit.account),
            visit.account,
            visit.lock.clause()
        );
        let rows = client.numbers(&query).await?;
        match rows.as_slice() {
            [row] if row.len() == 1 => {
                visit.allowance = Some(row[0]);
                Ok(row[0])
            }
            rows => Err(CallError::Nonsense(format!(
                "account {} was asked for and came as {rows:?}",
                visit.account
            ))),
        }
    }

    async fn read(&self, client: &Client, visit: &mut Visit, random: &mut SmallRng) -> CallResult<()> {
        let clock = client.world().clock.clone();
        // An index cannot help with a sum, so that this reads the whole table.
        let column = if random.random_bool(0.5) {
            "account"
        } else {
            "account + 0"
        };
        let query = format!(
            "SELECT id, amount FROM {} WHERE {column} = {}",
            self.ledger(),
            visit.account
        );
        let asked_micros = clock.monotonic().0 / 1000;
        let entries = client.pairs(&query).await?;
        visit.readings.push(Reading {
            asked_micros,
            answered_micros: clock.monotonic().0 / 1000,
            entries,
        });
        Ok(())
    }

    /// Enters an amount if there is room; else, and now and then all the same, takes entries back.
    async fn change(
        &self,
        client: &Client,
        visit: &mut Visit,
        allowance: i64,
        random: &mut SmallRng,
    ) -> CallResult<()> {
        let ledger = self.ledger();
        let entries = match visit.readings.last() {
            Some(reading) => reading.entries.clone(),
            None => Vec::new(),
        };
        let spent: i64 = entries.iter().map(|(_, amount)| amount).sum();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut amount = random.random_range(1..=LARGEST_AMOUNT);
        if spent + amount > allowance || random.random_bool(0.1) {
            amount = 0;
            let mut ids: Vec<i64> = entries.iter().map(|(id, _)| *id).collect();
            ids.shuffle(random);
            if random.random_bool(0.7) {
                ids.truncate(ids.len().div_ceil(2));
            }
            visit.removed = ids;
        }
        visit.entered = Some((id, amount));
        if !visit.removed.is_empty() {
            let ids: Vec<String> = visit.removed.iter().map(i64::to_string).collect();
            let delete = format!("DELETE FROM {ledger} WHERE id IN ({})", ids.join(", "));
            visit.removed_rows = client.run(&delete).await?;
        }
        let insert = format!(
            "INSERT INTO {ledger} (id, account, amount) VALUES ({id}, {}, {amount})",
            visit.account
        );
        match client.run(&insert).await? {
            1 => Ok(()),
            rows => Err(CallError::Nonsense(format!("one entry came to be {rows} rows"))),
        }
    }

    /// Fills in what was seen; the flag of an error tells whether it met the commit.
    async fn execute(
        &self,
        client: &Client,
        random: &mut SmallRng,
        visit: &mut Visit,
    ) -> Result<(), Failure> {
        let before = |error| (error, false);
        if visit.lock == Lock::None {
            return self.read(client, visit, random).await.map_err(before);
        }
        let clock = client.world().clock.clone();
        client
            .run("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await
            .map_err(before)?;
        let allowance = self.lock(client, visit, random).await.map_err(before)?;
        self.read(client, visit, random).await.map_err(before)?;
        let looks = match visit.lock {
            Lock::Share => random.random_range(1..=2),
            _ => u32::from(random.random_bool(0.1)),
        };
        for _ in 0..looks {
            let pause = random.random_range(0..=LONGEST_LOOK_MS);
            clock.sleep(Duration::from_millis(pause)).await;
            self.read(client, visit, random).await.map_err(before)?;
        }
        if visit.lock != Lock::Share {
            self.change(client, visit, allowance, random)
                .await
                .map_err(before)?;
            if random.random_bool(0.2) {
                let pause = random.random_range(0..=LONGEST_HESITATION_MS);
                clock.sleep(Duration::from_millis(pause)).await;
            }
        }
        client.run("COMMIT").await.map_err(|error| (error, true))?;
        Ok(())
    }

    /// One transaction of the last reading, which is tried again if it fails.
    async fn visit_at_last(&self, client: &Client, account: i64, lock: Lock) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let mut random = SmallRng::seed_from_u64(account.unsigned_abs());
        let mut visit = Visit {
            account,
            lock,
            ..Visit::default()
        };
        let invocation = self.history.invoke(&*clock, FINAL_READER, visit.clone());
        let result = self.execute(client, &mut random, &mut visit).await;
        let (outcome, message) = match &result {
            Ok(()) => (Outcome::Done, None),
            Err(failure) => outcome_of(failure),
        };
        self.history
            .complete(&*clock, invocation, visit, outcome, message);
        result.map_err(|(error, _)| error)
    }
}

#[async_trait]
impl Workload for GuardedBudget {
    fn name(&self) -> &str {
        "guarded-budget"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        let allowance = "allowance bigint NOT NULL";
        let ledger = self.ledger();
        let columns = "account bigint NOT NULL, amount bigint NOT NULL";
        create_table(client, &ledger, columns, self.shards).await?;
        client
            .run(&format!("CREATE INDEX {ledger}_account ON {ledger} (account)"))
            .await?;
        create_table(client, &self.accounts_of(1), allowance, self.shards).await?;
        create_table(client, &self.accounts_of(0), allowance, self.shards_apart()).await?;
        for first in 0..2 {
            let accounts = (first..ACCOUNTS).step_by(2).map(|id| (id, ALLOWANCE));
            fill_table(client, &self.accounts_of(first), "allowance", accounts).await?;
        }
        Ok(())
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let lock = match random.random_range(0..10) {
            0..=3 => Lock::Update,
            4 | 5 => Lock::NoKeyUpdate,
            6..=8 => Lock::Share,
            _ => Lock::None,
        };
        // Few clients have to meet often: the lower ones are asked for more.
        let account = random
            .random_range(0..ACCOUNTS)
            .min(random.random_range(0..ACCOUNTS));
        let mut visit = Visit {
            account,
            lock,
            ..Visit::default()
        };
        let invocation = self.history.invoke(&*client.world().clock, index, visit.clone());
        let result = self.execute(client, random, &mut visit).await;
        conclude(client, &self.history, invocation, visit, result).await
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        for account in 0..ACCOUNTS {
            // Whatever happened before, there is somebody who spends.
            self.visit_at_last(client, account, Lock::Update).await?;
            self.visit_at_last(client, account, Lock::None).await?;
        }
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, checker::guarded_budget::check)
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}
