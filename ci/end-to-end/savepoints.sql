-- What ROLLBACK TO SAVEPOINT brings back, statement by statement as PostgreSQL.
CREATE TABLE ledger (id BIGINT PRIMARY KEY, owner VARCHAR(20) NOT NULL, amount NUMERIC(12,2) NOT NULL) SHARD KEY (id) SHARDS 4;
CREATE UNIQUE INDEX ledger_owner ON ledger (id, owner);
INSERT INTO ledger VALUES (1, 'ada', 100), (2, 'boris', 200), (3, 'chen', 300);

-- Outside a block.
SAVEPOINT outside;
ROLLBACK TO SAVEPOINT outside;
RELEASE outside;

-- Undone and kept changes.
BEGIN;
UPDATE ledger SET amount = amount + 1 WHERE id = 1;
SAVEPOINT a;
UPDATE ledger SET amount = amount + 10;
INSERT INTO ledger VALUES (4, 'dana', 400);
DELETE FROM ledger WHERE id = 2;
SELECT * FROM ledger ORDER BY id;
ROLLBACK TO a;
SELECT * FROM ledger ORDER BY id;
INSERT INTO ledger VALUES (4, 'again', 4);
DELETE FROM ledger WHERE id = 4;
INSERT INTO ledger VALUES (4, 'and again', 44);
COMMIT;
SELECT * FROM ledger ORDER BY id;

-- An error in a block can be survived.
BEGIN;
INSERT INTO ledger VALUES (5, 'emil', 500);
SAVEPOINT before_error;
INSERT INTO ledger VALUES (6, 'fay', 600), (1, 'duplicate', 1), (7, 'gus', 700);
SELECT count(*) FROM ledger;
SAVEPOINT refused;
RELEASE before_error;
ROLLBACK TO unknown;
ROLLBACK TO SAVEPOINT before_error;
SELECT count(*), sum(amount) FROM ledger;
SELECT 1 / 0;
ROLLBACK TO before_error;
INSERT INTO ledger VALUES (6, 'fay', 600);
COMMIT;
SELECT * FROM ledger ORDER BY id;

-- Nested ones, and one name twice.
BEGIN;
SAVEPOINT s;
INSERT INTO ledger VALUES (10, 'outer', 1);
SAVEPOINT s;
INSERT INTO ledger VALUES (11, 'inner', 1);
SAVEPOINT deepest;
UPDATE ledger SET owner = 'changed' WHERE id >= 10;
ROLLBACK TO s;
SELECT id, owner FROM ledger WHERE id >= 10 ORDER BY id;
ROLLBACK TO deepest;
ROLLBACK TO s;
RELEASE s;
SELECT id, owner FROM ledger WHERE id >= 10 ORDER BY id;
ROLLBACK TO SAVEPOINT s;
SELECT id, owner FROM ledger WHERE id >= 10 ORDER BY id;
RELEASE SAVEPOINT s;
RELEASE s;
ROLLBACK TO s;
COMMIT;
SELECT count(*) FROM ledger;

-- Released, and then all undone or all kept.
BEGIN;
SAVEPOINT one;
DELETE FROM ledger WHERE id = 1;
RELEASE one;
SAVEPOINT two;
DELETE FROM ledger WHERE id = 3;
ROLLBACK TO two;
ROLLBACK;
SELECT id FROM ledger ORDER BY id;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SAVEPOINT one;
DELETE FROM ledger WHERE id = 1;
RELEASE one;
SAVEPOINT two;
DELETE FROM ledger;
ROLLBACK TO two;
END;
SELECT id FROM ledger ORDER BY id;

-- COMMIT of a block that has failed is a rollback, with a savepoint or without.
BEGIN;
DELETE FROM ledger;
SAVEPOINT late;
SELECT nothing;
COMMIT;
SELECT count(*) FROM ledger;
