//! Whether everything can be written, once nothing is broken and no client is left that could hold a lock.
//!
//! Each row is given the value that it has: histories stay true, and a shard that refuses writes for ever, or a lock
//! that outlived its transaction, shows.

use std::time::Duration;

use neorunbase_workloads::client::CallResult;
use neorunbase_workloads::{Client, ClientWorld, Target};

use crate::trace::{Trace, trace};

/// Each table must be written within this: longer than a definition waits for transactions, which one whose client is gone
/// may still do.
pub const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// A statement is given up, and tried again, after this.
const CALL_LIMIT: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(300);
const UNDEFINED_TABLE: &str = "42P01";

/// Writes all rows of all tables; what is wrong with those that could not be written in time.
pub async fn unwritable_tables(world: &ClientWorld, target: &Target, trace: &Trace) -> Vec<String> {
    let target = Target {
        call_deadline: CALL_LIMIT,
        ..target.clone()
    };
    let within = WRITE_LIMIT.as_secs();
    let tables = match retry(world, &target, async |client| tables(client).await).await {
        Ok(tables) => tables,
        Err(error) => {
            return vec![format!(
                "nobody tells within {within} s which tables there are: {error}"
            )];
        }
    };
    let mut complaints = Vec::new();
    for table in tables {
        match retry(world, &target, async |client| write(client, &table).await).await {
            Ok(rows) => trace!(trace, "client has written all {rows} rows of {table}"),
            Err(error) => complaints.push(format!(
                "table {table} cannot be written within {within} s: {error}"
            )),
        }
    }
    complaints
}

async fn tables(client: &Client) -> CallResult<Vec<String>> {
    texts(
        client,
        "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name",
    )
    .await
}

/// The last column of a table: that is no key, where there are others.
async fn last_column(client: &Client, table: &str) -> CallResult<Option<String>> {
    let query = format!(
        "SELECT column_name FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name = '{table}' ORDER BY ordinal_position"
    );
    Ok(texts(client, &query).await?.pop())
}

async fn texts(client: &Client, query: &str) -> CallResult<Vec<String>> {
    let rows = client.rows(query).await?;
    Ok(rows.into_iter().flatten().flatten().collect())
}

async fn write(client: &Client, table: &str) -> CallResult<u64> {
    // Looked up each time: a definition whose client did not wait for it may change that, too.
    let Some(column) = last_column(client, table).await? else {
        return Ok(0);
    };
    let written = client
        .run(&format!("UPDATE {table} SET {column} = {column}"))
        .await;
    match written {
        Err(error) if error.code() == Some(UNDEFINED_TABLE) => Ok(0),
        written => written,
    }
}

/// Tries until it works or the time is up, each time on a connection of its own: the last error then.
async fn retry<T>(
    world: &ClientWorld,
    target: &Target,
    attempt: impl AsyncFn(&Client) -> CallResult<T>,
) -> CallResult<T> {
    let give_up = world.clock.monotonic().after(WRITE_LIMIT);
    loop {
        let result = match Client::connect(world, target).await {
            Ok(client) => attempt(&client).await,
            Err(error) => Err(error),
        };
        match result {
            Err(_) if world.clock.monotonic() < give_up => world.clock.sleep(RETRY_PAUSE).await,
            result => return result,
        }
    }
}
