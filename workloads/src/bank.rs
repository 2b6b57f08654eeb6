//! Accounts between which money moves. Every snapshot, of one statement or of one transaction, holds it all.

use std::collections::BTreeMap;
use std::io::{self, Write};

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::checker;
use crate::client::{CallError, CallResult, Client, at_most_one, by_key, number};
use crate::history::{FINAL_READER, History, Outcome};
use crate::workload::{
    Failure, Report, Step, Workload, after_error, conclude_last, create_table, fill_table, judge, outcome_of,
};

/// How a transfer keeps others out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferKind {
    /// READ COMMITTED; both rows by SELECT … FOR UPDATE, then absolute balances.
    LockedRows,
    /// READ COMMITTED; relative updates, no reading.
    Relative,
    /// REPEATABLE READ; plain reads, then absolute balances; a conflict is refused.
    Snapshot,
}

/// How balances are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadKind {
    /// One statement over all accounts.
    OneStatement,
    /// One REPEATABLE READ transaction, an account a statement.
    OneTransaction,
    /// The sum, computed by the server.
    ServerSum,
    /// The last reading, when everything is quiet.
    Final,
}

/// An operation of the bank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BankOperation {
    /// Money moved.
    Transfer {
        /// How.
        kind: TransferKind,
        /// Payer.
        from: i64,
        /// Payee.
        to: i64,
        /// How much.
        amount: i64,
    },
    /// Balances read: account to balance (empty until answered).
    Read {
        /// How.
        kind: ReadKind,
        /// What was seen.
        balances: BTreeMap<i64, i64>,
    },
    /// Number of accounts and sum of balances as the server added them up.
    Sum {
        /// How many accounts.
        accounts: i64,
        /// How much money.
        total: i64,
    },
}

/// The bank workload.
pub struct Bank {
    table: String,
    shards: Option<u32>,
    accounts: i64,
    initial_balance: i64,
    history: History<BankOperation>,
}

impl Bank {
    /// A bank of `accounts` accounts in `table`, over `shards` shards where the server knows them.
    pub fn new(table: &str, accounts: i64, initial_balance: i64, shards: Option<u32>) -> Self {
        Self {
            table: table.to_owned(),
            shards,
            accounts,
            initial_balance,
            history: History::default(),
        }
    }

    async fn transfer(
        &self,
        client: &Client,
        kind: TransferKind,
        from: i64,
        to: i64,
        amount: i64,
    ) -> Result<bool, Failure> {
        let table = &self.table;
        let before = |error| (error, false);
        let commit_failed = |error| (error, true);
        match kind {
            TransferKind::Relative => {
                client.run("BEGIN").await.map_err(before)?;
                let taken = client
                    .run(&format!("UPDATE {table} SET balance = balance - {amount} WHERE id = {from} AND balance >= {amount}"))
                    .await
                    .map_err(before)?;
                if taken != 1 {
                    client.run("ROLLBACK").await.map_err(before)?;
                    return Ok(false);
                }
                let given = client
                    .run(&format!(
                        "UPDATE {table} SET balance = balance + {amount} WHERE id = {to}"
                    ))
                    .await
                    .map_err(before)?;
                if given != 1 {
                    let error = CallError::Nonsense(format!("account {to} was not there to be updated"));
                    return Err((error, false));
                }
            }
            TransferKind::LockedRows | TransferKind::Snapshot => {
                let (begin, lock) = match kind {
                    TransferKind::Snapshot => ("BEGIN ISOLATION LEVEL REPEATABLE READ", ""),
                    _ => ("BEGIN", " FOR UPDATE"),
                };
                client.run(begin).await.map_err(before)?;
                let mut balances = BTreeMap::new();
                for id in [from.min(to), from.max(to)] {
                    let rows = client
                        .rows(&format!("SELECT balance FROM {table} WHERE id = {id}{lock}"))
                        .await
                        .map_err(before)?;
                    let row = at_most_one(rows).map_err(before)?;
                    let balance = number(row.as_ref().and_then(|row| row.first())).map_err(before)?;
                    balances.insert(id, balance);
                }
                if balances[&from] < amount {
                    client.run("ROLLBACK").await.map_err(before)?;
                    return Ok(false);
                }
                for (id, balance) in [(from, balances[&from] - amount), (to, balances[&to] + amount)] {
                    let updated = client
                        .run(&format!("UPDATE {table} SET balance = {balance} WHERE id = {id}"))
                        .await
                        .map_err(before)?;
                    if updated != 1 {
                        let error = CallError::Nonsense(format!("account {id} was not there to be updated"));
                        return Err((error, false));
                    }
                }
            }
        }
        client.run("COMMIT").await.map_err(commit_failed)?;
        Ok(true)
    }

    async fn read_all(&self, client: &Client) -> CallResult<BTreeMap<i64, i64>> {
        let query = format!("SELECT id, balance FROM {}", self.table);
        by_key(client.pairs(&query).await?)
    }

    async fn read_one_by_one(&self, client: &Client) -> CallResult<BTreeMap<i64, i64>> {
        client.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let statement = client
            .prepare(&format!("SELECT balance FROM {} WHERE id = $1", self.table))
            .await?;
        let mut balances = Vec::new();
        for id in 0..self.accounts {
            for row in client.query(&statement, &[&id]).await? {
                let balance: i64 = row
                    .try_get(0)
                    .map_err(|error| CallError::Nonsense(error.to_string()))?;
                balances.push((id, balance));
            }
        }
        client.run("COMMIT").await?;
        by_key(balances)
    }
}

#[async_trait]
impl Workload for Bank {
    fn name(&self) -> &str {
        "bank"
    }

    async fn setup(&self, client: &Client) -> CallResult<()> {
        let table = &self.table;
        create_table(client, table, "balance bigint NOT NULL", self.shards).await?;
        let rows = (0..self.accounts).map(|id| (id, self.initial_balance));
        fill_table(client, table, "balance", rows).await
    }

    async fn step(&self, client: &Client, index: u32, random: &mut SmallRng) -> Step {
        let clock = client.world().clock.clone();
        if random.random_bool(0.6) {
            let from = random.random_range(0..self.accounts);
            let to = (from + random.random_range(1..self.accounts)) % self.accounts;
            let amount = random.random_range(1..=5);
            let kind = match random.random_range(0..3) {
                0 => TransferKind::LockedRows,
                1 => TransferKind::Relative,
                _ => TransferKind::Snapshot,
            };
            let operation = BankOperation::Transfer {
                kind,
                from,
                to,
                amount,
            };
            let invocation = self.history.invoke(&*clock, index, operation.clone());
            let result = self.transfer(client, kind, from, to, amount).await;
            let (outcome, error) = match &result {
                Ok(true) => (Outcome::Done, None),
                Ok(false) => (Outcome::Failed, Some("not enough money".to_owned())),
                Err(failure) => outcome_of(failure),
            };
            self.history
                .complete(&*clock, invocation, operation, outcome, error);
            return match result {
                Ok(_) => Step::Served,
                Err((error, _)) => after_error(client, &error).await,
            };
        }
        let kind = match random.random_range(0..4) {
            0 => ReadKind::OneTransaction,
            1 => ReadKind::ServerSum,
            _ => ReadKind::OneStatement,
        };
        let empty = BankOperation::Read {
            kind,
            balances: BTreeMap::new(),
        };
        let invocation = self.history.invoke(&*clock, index, empty.clone());
        let result = match kind {
            ReadKind::OneTransaction => self
                .read_one_by_one(client)
                .await
                .map(|balances| BankOperation::Read { kind, balances }),
            ReadKind::ServerSum => self.server_sum(client).await,
            _ => self
                .read_all(client)
                .await
                .map(|balances| BankOperation::Read { kind, balances }),
        };
        match result {
            Ok(operation) => {
                self.history
                    .complete(&*clock, invocation, operation, Outcome::Done, None);
                Step::Served
            }
            Err(error) => {
                self.history.complete(
                    &*clock,
                    invocation,
                    empty,
                    Outcome::Failed,
                    Some(error.to_string()),
                );
                after_error(client, &error).await
            }
        }
    }

    async fn finish(&self, client: &Client) -> CallResult<()> {
        let clock = client.world().clock.clone();
        let kind = ReadKind::Final;
        let balances = match self.read_all(client).await {
            Ok(balances) => balances,
            Err(error) => {
                let balances = BTreeMap::new();
                let nothing = BankOperation::Read { kind, balances };
                return conclude_last(client, &self.history, nothing, error);
            }
        };
        let operation = BankOperation::Read { kind, balances };
        let invocation = self.history.invoke(&*clock, FINAL_READER, operation.clone());
        self.history
            .complete(&*clock, invocation, operation, Outcome::Done, None);
        Ok(())
    }

    fn check(&self) -> Report {
        judge(&self.history, |records| {
            checker::bank::check(records, self.accounts, self.initial_balance)
        })
    }

    fn write_history(&self, output: &mut dyn Write) -> io::Result<()> {
        self.history.write_json_lines(output)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}

impl Bank {
    async fn server_sum(&self, client: &Client) -> CallResult<BankOperation> {
        let rows = client
            .rows(&format!("SELECT count(*), sum(balance) FROM {}", self.table))
            .await?;
        let row = rows
            .first()
            .ok_or_else(|| CallError::Nonsense("an aggregate without a row".into()))?;
        Ok(BankOperation::Sum {
            accounts: number(row.first())?,
            total: number(row.get(1))?,
        })
    }
}
