CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE attestations (
	serial INTEGER NOT NULL, 
	image VARCHAR(12) NOT NULL, 
	predicate VARCHAR(255) NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	keyid VARCHAR(64) NOT NULL, 
	who VARCHAR(255) NOT NULL, 
	at VARCHAR(20) NOT NULL, 
	CONSTRAINT pk_attestations PRIMARY KEY (serial), 
	CONSTRAINT fk_attestations_image_images FOREIGN KEY(image) REFERENCES images (id)
);
CREATE TABLE builds (
	serial INTEGER NOT NULL, 
	id VARCHAR(12) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	started VARCHAR(20) NOT NULL, 
	finished VARCHAR(20) NOT NULL, 
	template_name VARCHAR(255) NOT NULL, 
	template_version VARCHAR(255) NOT NULL, 
	template_path TEXT NOT NULL, 
	template_text TEXT NOT NULL, 
	template_digest VARCHAR(71) NOT NULL, 
	git_commit VARCHAR(64) NOT NULL, 
	git_dirty BOOLEAN NOT NULL, 
	variables JSON NOT NULL, 
	source JSON NOT NULL, 
	shape JSON NOT NULL, 
	machine JSON NOT NULL, 
	host JSON NOT NULL, 
	tools JSON NOT NULL, 
	who VARCHAR(255) NOT NULL, 
	ci JSON NOT NULL, 
	timings JSON NOT NULL, 
	inputs JSON NOT NULL, 
	verify VARCHAR(16) NOT NULL, 
	error TEXT NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, verify_key VARCHAR(64) DEFAULT '' NOT NULL, reproduction JSON DEFAULT '{}' NOT NULL, 
	CONSTRAINT pk_builds PRIMARY KEY (serial), 
	CONSTRAINT uq_builds_id UNIQUE (id)
);
CREATE TABLE channel_events (
	serial INTEGER NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	channel VARCHAR(64) NOT NULL, 
	action VARCHAR(16) NOT NULL, 
	"before" VARCHAR(12), 
	"after" VARCHAR(12), 
	who VARCHAR(255) NOT NULL, 
	at VARCHAR(20) NOT NULL, 
	why TEXT NOT NULL, 
	CONSTRAINT pk_channel_events PRIMARY KEY (serial), 
	CONSTRAINT fk_channel_events_before_images FOREIGN KEY("before") REFERENCES images (id), 
	CONSTRAINT fk_channel_events_after_images FOREIGN KEY("after") REFERENCES images (id)
);
CREATE TABLE channels (
	name VARCHAR(255) NOT NULL, 
	channel VARCHAR(64) NOT NULL, 
	image VARCHAR(12) NOT NULL, 
	protected BOOLEAN NOT NULL, 
	protected_by VARCHAR(255) NOT NULL, 
	who VARCHAR(255) NOT NULL, 
	changed VARCHAR(20) NOT NULL, 
	CONSTRAINT pk_channels PRIMARY KEY (name, channel), 
	CONSTRAINT fk_channels_image_images FOREIGN KEY(image) REFERENCES images (id)
);
CREATE TABLE evidence (
	build VARCHAR(12) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	position INTEGER NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	CONSTRAINT pk_evidence PRIMARY KEY (build, name), 
	CONSTRAINT fk_evidence_build_builds FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE
);
CREATE TABLE image_blobs (
	image VARCHAR(12) NOT NULL, 
	position INTEGER NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	CONSTRAINT pk_image_blobs PRIMARY KEY (image, position), 
	CONSTRAINT fk_image_blobs_image_images FOREIGN KEY(image) REFERENCES images (id) ON DELETE CASCADE
);
CREATE TABLE images (
	serial INTEGER NOT NULL, 
	id VARCHAR(12) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	version VARCHAR(255) NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	parent VARCHAR(12), 
	created VARCHAR(20) NOT NULL, 
	size BIGINT NOT NULL, 
	virtual_size BIGINT NOT NULL, 
	verified BOOLEAN NOT NULL, 
	build VARCHAR(12) NOT NULL, 
	builder VARCHAR(64) NOT NULL, 
	firmware VARCHAR(16) NOT NULL, 
	ssh_username VARCHAR(64) NOT NULL, 
	description TEXT NOT NULL, 
	labels JSON NOT NULL, 
	matrix JSON NOT NULL, 
	removed VARCHAR(20), origin VARCHAR(16) DEFAULT 'built' NOT NULL, 
	CONSTRAINT pk_images PRIMARY KEY (serial), 
	CONSTRAINT fk_images_build_builds FOREIGN KEY(build) REFERENCES builds (id), 
	CONSTRAINT fk_images_parent_images FOREIGN KEY(parent) REFERENCES images (id), 
	CONSTRAINT uq_images_id UNIQUE (id)
);
CREATE TABLE journal (
	serial INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	subject VARCHAR(255) NOT NULL, 
	digest VARCHAR(71) NOT NULL, 
	previous VARCHAR(64) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	at VARCHAR(20) NOT NULL, 
	CONSTRAINT pk_journal PRIMARY KEY (serial), 
	CONSTRAINT uq_journal_hash UNIQUE (hash)
);
CREATE TABLE publications (
	serial INTEGER NOT NULL, 
	image VARCHAR(12) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	region VARCHAR(64) NOT NULL, 
	reference VARCHAR(255) NOT NULL, 
	account VARCHAR(32) NOT NULL, 
	snapshots JSON NOT NULL, 
	details JSON NOT NULL, 
	created VARCHAR(20) NOT NULL, 
	removed VARCHAR(20), 
	CONSTRAINT pk_publications PRIMARY KEY (serial), 
	CONSTRAINT fk_publications_image_images FOREIGN KEY(image) REFERENCES images (id), 
	CONSTRAINT uq_publications_kind UNIQUE (kind, region, reference)
);
CREATE TABLE rebuilds (
	serial INTEGER NOT NULL, 
	image VARCHAR(12) NOT NULL, 
	level INTEGER NOT NULL, 
	disk VARCHAR(71) NOT NULL, 
	report VARCHAR(71) NOT NULL, 
	host JSON NOT NULL, 
	who VARCHAR(255) NOT NULL, 
	at VARCHAR(20) NOT NULL, 
	CONSTRAINT pk_rebuilds PRIMARY KEY (serial), 
	CONSTRAINT fk_rebuilds_image_images FOREIGN KEY(image) REFERENCES images (id)
);
CREATE TABLE releases (
	serial INTEGER NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	number INTEGER NOT NULL, 
	image VARCHAR(12) NOT NULL, 
	channel VARCHAR(64) NOT NULL, 
	target VARCHAR(255) NOT NULL, 
	region VARCHAR(64) NOT NULL, 
	account VARCHAR(32) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	rollback_of INTEGER, 
	details JSON NOT NULL, 
	who VARCHAR(255) NOT NULL, 
	started VARCHAR(20) NOT NULL, 
	finished VARCHAR(20), 
	why TEXT NOT NULL, 
	error TEXT NOT NULL, 
	CONSTRAINT pk_releases PRIMARY KEY (serial), 
	CONSTRAINT fk_releases_image_images FOREIGN KEY(image) REFERENCES images (id), 
	CONSTRAINT uq_releases_name UNIQUE (name, number)
);
CREATE TABLE revocations (
	serial INTEGER NOT NULL, 
	image VARCHAR(12) NOT NULL, 
	reason TEXT NOT NULL, 
	who VARCHAR(255) NOT NULL, 
	at VARCHAR(20) NOT NULL, 
	effective VARCHAR(20) NOT NULL, 
	descendants BOOLEAN NOT NULL, 
	undone VARCHAR(20), 
	undone_by VARCHAR(255) NOT NULL, 
	CONSTRAINT pk_revocations PRIMARY KEY (serial), 
	CONSTRAINT fk_revocations_image_images FOREIGN KEY(image) REFERENCES images (id)
);
CREATE TABLE steps (
	build VARCHAR(12) NOT NULL, 
	position INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	kind VARCHAR(64) NOT NULL, 
	"key" VARCHAR(64) NOT NULL, 
	origin TEXT NOT NULL, 
	bundle TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	seconds FLOAT NOT NULL, 
	exit_code INTEGER, 
	attempts INTEGER NOT NULL, ran FLOAT DEFAULT '0' NOT NULL, inputs JSON DEFAULT '{}' NOT NULL, 
	CONSTRAINT pk_steps PRIMARY KEY (build, position), 
	CONSTRAINT fk_steps_build_builds FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE
);
CREATE TABLE tests (
	build VARCHAR(12) NOT NULL, 
	position INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	outcome VARCHAR(16) NOT NULL, 
	seconds FLOAT NOT NULL, 
	message TEXT NOT NULL, 
	CONSTRAINT pk_tests PRIMARY KEY (build, position), 
	CONSTRAINT fk_tests_build_builds FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE
);
CREATE INDEX ix_builds_fingerprint ON builds (fingerprint);
CREATE INDEX ix_builds_template_name ON builds (template_name);
CREATE INDEX ix_evidence_digest ON evidence (digest);
CREATE INDEX ix_images_build ON images (build);
CREATE INDEX ix_images_digest ON images (digest);
CREATE INDEX ix_images_fingerprint ON images (fingerprint);
CREATE INDEX ix_images_name_version ON images (name, version);
CREATE INDEX ix_images_parent ON images (parent);
CREATE INDEX ix_steps_key ON steps ("key");
CREATE INDEX ix_image_blobs_digest ON image_blobs (digest);
CREATE INDEX ix_publications_image ON publications (image);
CREATE INDEX ix_channels_image ON channels (image);
CREATE INDEX ix_channel_events_name_channel ON channel_events (name, channel);
CREATE INDEX ix_revocations_image ON revocations (image);
CREATE INDEX ix_releases_image ON releases (image);
CREATE INDEX ix_releases_target ON releases (target);
CREATE INDEX ix_journal_subject ON journal (subject);
CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE INDEX ix_attestations_image ON attestations (image);
CREATE INDEX ix_attestations_digest ON attestations (digest);
CREATE INDEX ix_rebuilds_image ON rebuilds (image);
CREATE INDEX ix_rebuilds_report ON rebuilds (report);
