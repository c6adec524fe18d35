PRAGMA page_size=4096;
BEGIN TRANSACTION;
CREATE TABLE calls (
    request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,
    principal TEXT NOT NULL,
    tries BIGINT NOT NULL,
    model TEXT NOT NULL,
    image_size TEXT NOT NULL,
    tier TEXT NOT NULL,
    day TEXT NOT NULL,
    list_price BIGINT,
    reserved BIGINT NOT NULL,
    possible BIGINT NOT NULL,
    cost BIGINT,
    estimated BIGINT NOT NULL,
    billed BIGINT,
    usage TEXT,
    raw TEXT,
    sha256 TEXT,
    size BIGINT,
    stem TEXT NOT NULL,
    result TEXT,
    error TEXT,
    planned BIGINT NOT NULL,
    sent BIGINT,
    received BIGINT,
    finished BIGINT,
    PRIMARY KEY (request_id, number, attempt)
);
INSERT INTO calls VALUES('req_70b3030b789c2a4dfea14bf39a276a7e',1,1,'exported','138a7a3686063c25f4d4fb39146bd800','-',1,'gemini-nano-banana-2.1','1K','interactive','2026-11-26',33600000,0,0,33807000,0,1,'{"promptTokenCount": 138, "candidatesTokenCount": 1120, "totalTokenCount": 1258, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}]}','generated/req_70b3030b789c2a4dfea14bf39a276a7e_1.png','7569fa8981b8201039c8eddbb2fb529e5e515250e03df34c37370a97c5cba637',32403,'export_7995bbce9e573142d050e2de9ef7628d','{"version": 1, "id": "var-1", "storage_path": "generated/req_70b3030b789c2a4dfea14bf39a276a7e_1.png", "metadata": {"prompt": "Draw one finished thumbnail picture, aspect ratio 16:9, for the video whose script stands between the script tags.\n\n- One clear subject that shows what the video is about, with depth, strong light and colours that stand out when small.\n- Fill the whole frame, edge to edge: no border, no collage, no mock-up of a player, no watermark.\n- If words help, use at most five, large, in the language of the script, spelled exactly and clear of the edges.\n- Take the subject, the mood and the style from the script alone.\n\n<script>\nMy awesome video\n</script>", "model": "gemini-nano-banana-2.1", "aspect_ratio": "16:9", "width": 1376, "height": 768, "mime_type": "image/png", "sha256": "7569fa8981b8201039c8eddbb2fb529e5e515250e03df34c37370a97c5cba637", "usage": {"promptTokenCount": 138, "candidatesTokenCount": 1120, "totalTokenCount": 1258, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}]}, "cost_usd": 0.033807, "normalized_to": [1280, 720], "composited": false}, "exported": {"picture": {"width": 1376, "height": 768, "format": "png"}, "normalized_to": [1280, 720], "composited": false, "exports": {"jpeg": {"format": "JPEG", "url": "/static/output/export_7995bbce9e573142d050e2de9ef7628d.jpg", "file_path": "output/export_7995bbce9e573142d050e2de9ef7628d.jpg", "size": 6293, "exported_at": "2026-11-26T20:28:08.391474+00:00", "width": 1280, "height": 720, "content_type": "image/jpeg", "sha256": "32ff02adf5cff32532bcbf9b5c2f39ef73c863e0c9111c39ebf7c2b556dd39b5"}}, "warnings": []}}',NULL,1795724887541105,1795724887548180,1795724887918273,1795724888393872);
INSERT INTO calls VALUES('req_e9d7476bc0279b05c9900de73e1ecb42',1,1,'failed','138a7a3686063c25f4d4fb39146bd800','-',1,'gemini-nano-banana-2.1','1K','interactive','2026-11-26',33600000,0,0,0,0,0,'{"promptTokenCount": 138, "totalTokenCount": 138}',NULL,NULL,NULL,'export_b9dfebc581e6433428123aec31995801',NULL,'{"version": 1, "code": "blocked", "status": 422, "detail": "Gemini refused the prompt (SAFETY)", "retryable": false, "billed": false, "storage_path": null, "headers": {}}',1795724888435159,1795724888439762,NULL,1795724888447723);
INSERT INTO calls VALUES('req_2bafe762f2a201d12bbb10b00672a0a9',1,1,'unknown','138a7a3686063c25f4d4fb39146bd800','-',1,'gemini-nano-banana-2.1','1K','interactive','2026-11-26',33600000,0,33600000,NULL,0,NULL,NULL,NULL,NULL,NULL,'export_1456585d86d0a16a439e1558e271850b',NULL,'{"version": 1, "code": "outcome_unknown", "status": 502, "detail": "the connection to Gemini broke; the call may have been billed", "retryable": false, "billed": null, "storage_path": null, "headers": {}}',1795724888452631,1795724888454446,NULL,1795724888458133);
INSERT INTO calls VALUES('req_8f24f66211c19bf3e4a0a051f0d18dcd',1,1,'exported','138a7a3686063c25f4d4fb39146bd800','-',1,'gemini-nano-banana-2.1','1K','interactive','2026-11-26',33600000,0,0,33807000,0,1,'{"promptTokenCount": 138, "candidatesTokenCount": 1120, "totalTokenCount": 1258, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}]}','generated/req_8f24f66211c19bf3e4a0a051f0d18dcd_1.png','53707a27572bf477e2a10db6b9889f2d7f78ffc0c57e500170eb5d670bb19e79',32406,'export_c420888a7a29c8479c4e5bcf50ef3c20','{"version": 1, "id": "var-1", "storage_path": "generated/req_8f24f66211c19bf3e4a0a051f0d18dcd_1.png", "metadata": {"prompt": "Draw one finished thumbnail picture, aspect ratio 16:9, for the video whose script stands between the script tags.\n\n- One clear subject that shows what the video is about, with depth, strong light and colours that stand out when small.\n- Fill the whole frame, edge to edge: no border, no collage, no mock-up of a player, no watermark.\n- If words help, use at most five, large, in the language of the script, spelled exactly and clear of the edges.\n- Take the subject, the mood and the style from the script alone.\n\n<script>\nMy awesome video\n</script>", "model": "gemini-nano-banana-2.1", "aspect_ratio": "16:9", "width": 1376, "height": 768, "mime_type": "image/png", "sha256": "53707a27572bf477e2a10db6b9889f2d7f78ffc0c57e500170eb5d670bb19e79", "usage": {"promptTokenCount": 138, "candidatesTokenCount": 1120, "totalTokenCount": 1258, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}]}, "cost_usd": 0.033807, "normalized_to": [1280, 720], "composited": false}, "exported": {"picture": {"width": 1376, "height": 768, "format": "png"}, "normalized_to": [1280, 720], "composited": false, "exports": {"jpeg": {"format": "JPEG", "url": "/static/output/export_c420888a7a29c8479c4e5bcf50ef3c20.jpg", "file_path": "output/export_c420888a7a29c8479c4e5bcf50ef3c20.jpg", "size": 6293, "exported_at": "2026-11-26T20:28:09.128696+00:00", "width": 1280, "height": 720, "content_type": "image/jpeg", "sha256": "f1a21b45ae7b55122681f660f7164072555ef510c63a8de50c3be38502bae943"}}, "warnings": []}}',NULL,1795724888462525,1795724888464950,1795724888480602,1795724889134989);
INSERT INTO calls VALUES('req_8f24f66211c19bf3e4a0a051f0d18dcd',2,1,'exported','138a7a3686063c25f4d4fb39146bd800','-',1,'gemini-nano-banana-2.1','1K','interactive','2026-11-26',33600000,0,0,33807000,0,1,'{"promptTokenCount": 138, "candidatesTokenCount": 1120, "totalTokenCount": 1258, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}]}','generated/req_8f24f66211c19bf3e4a0a051f0d18dcd_2.png','5a0a21beb6260b57e8279a666b93dca8b18d42160fea51cbdc8c567b0fdf89c2',32403,'export_95a26a1581816dfbc93d91c0b97d97d5','{"version": 1, "id": "var-2", "storage_path": "generated/req_8f24f66211c19bf3e4a0a051f0d18dcd_2.png", "metadata": {"prompt": "Draw one finished thumbnail picture, aspect ratio 16:9, for the video whose script stands between the script tags.\n\n- One clear subject that shows what the video is about, with depth, strong light and colours that stand out when small.\n- Fill the whole frame, edge to edge: no border, no collage, no mock-up of a player, no watermark.\n- If words help, use at most five, large, in the language of the script, spelled exactly and clear of the edges.\n- Take the subject, the mood and the style from the script alone.\n\n<script>\nMy awesome video\n</script>", "model": "gemini-nano-banana-2.1", "aspect_ratio": "16:9", "width": 1376, "height": 768, "mime_type": "image/png", "sha256": "5a0a21beb6260b57e8279a666b93dca8b18d42160fea51cbdc8c567b0fdf89c2", "usage": {"promptTokenCount": 138, "candidatesTokenCount": 1120, "totalTokenCount": 1258, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}]}, "cost_usd": 0.033807, "normalized_to": [1280, 720], "composited": false}, "exported": {"picture": {"width": 1376, "height": 768, "format": "png"}, "normalized_to": [1280, 720], "composited": false, "exports": {"jpeg": {"format": "JPEG", "url": "/static/output/export_95a26a1581816dfbc93d91c0b97d97d5.jpg", "file_path": "output/export_95a26a1581816dfbc93d91c0b97d97d5.jpg", "size": 6293, "exported_at": "2026-11-26T20:28:08.759989+00:00", "width": 1280, "height": 720, "content_type": "image/jpeg", "sha256": "13512fa7c2c7d37e0a759af268fc5b3d78b5c723d0de157b3bf450c1f65b78c3"}}, "warnings": []}}',NULL,1795724888462525,1795724888464916,1795724888480535,1795724888761153);
INSERT INTO calls VALUES('req_f641b629f9d3fd6530402ebe23637ddb',1,1,'received','4c1ba4805f4bef33a87e8e9e5dd0f098','-',1,'gemini-nano-banana-2.1','1K','interactive','2026-11-26',33600000,0,0,33600000,0,1,'{"candidatesTokenCount": 1120}','generated/req_f641b629f9d3fd6530402ebe23637ddb_1.png','4b339e0d8c80961643eb53fd5122362b1818e4a754e1161b7ab27c008f92ad65',4501,'export_b6fa3b223780d32ad2f7708ac4ceedc2',NULL,NULL,1795724889193423,1795724889220451,1795724889226417,NULL);
INSERT INTO calls VALUES('req_34412392006b18ee0a49684d52240cdb',1,1,'planned','4c1ba4805f4bef33a87e8e9e5dd0f098','-',0,'gemini-nano-banana-2.1','1K','interactive','2026-11-26',33600000,67200000,0,NULL,0,NULL,NULL,NULL,NULL,NULL,'export_f6dc09bbc85d77eaed22826f80a9e21c',NULL,NULL,1795724889206971,NULL,NULL,NULL);
CREATE INDEX calls_by_day ON calls (day);
CREATE INDEX calls_by_state ON calls (state);
CREATE TABLE days (
    day TEXT NOT NULL,
    principal TEXT NOT NULL,
    reserved BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    possible BIGINT NOT NULL,
    PRIMARY KEY (day, principal)
);
INSERT INTO days VALUES('2026-11-26','',67200000,135021000,33600000);
INSERT INTO days VALUES('2026-11-26','-',67200000,135021000,33600000);
CREATE TABLE events (
    request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    number BIGINT,
    attempt BIGINT,
    data TEXT,
    PRIMARY KEY (request_id, sequence)
);
INSERT INTO events VALUES('req_70b3030b789c2a4dfea14bf39a276a7e',1,1795724887548180,'sent',1,1,NULL);
INSERT INTO events VALUES('req_70b3030b789c2a4dfea14bf39a276a7e',2,1795724887918273,'received',1,1,NULL);
INSERT INTO events VALUES('req_70b3030b789c2a4dfea14bf39a276a7e',3,1795724888393872,'exported',1,1,NULL);
INSERT INTO events VALUES('req_70b3030b789c2a4dfea14bf39a276a7e',4,1795724888393872,'done',NULL,NULL,'{"state": "succeeded", "cost": 33807000, "possible": 0}');
INSERT INTO events VALUES('req_e9d7476bc0279b05c9900de73e1ecb42',1,1795724888439762,'sent',1,1,NULL);
INSERT INTO events VALUES('req_e9d7476bc0279b05c9900de73e1ecb42',2,1795724888447723,'failed',1,1,'{"version": 1, "code": "blocked", "status": 422, "detail": "Gemini refused the prompt (SAFETY)", "retryable": false, "billed": false, "storage_path": null, "headers": {}}');
INSERT INTO events VALUES('req_e9d7476bc0279b05c9900de73e1ecb42',3,1795724888447723,'done',NULL,NULL,'{"state": "failed", "cost": 0, "possible": 0}');
INSERT INTO events VALUES('req_2bafe762f2a201d12bbb10b00672a0a9',1,1795724888454446,'sent',1,1,NULL);
INSERT INTO events VALUES('req_2bafe762f2a201d12bbb10b00672a0a9',2,1795724888458133,'failed',1,1,'{"version": 1, "code": "outcome_unknown", "status": 502, "detail": "the connection to Gemini broke; the call may have been billed", "retryable": false, "billed": null, "storage_path": null, "headers": {}}');
INSERT INTO events VALUES('req_2bafe762f2a201d12bbb10b00672a0a9',3,1795724888458133,'done',NULL,NULL,'{"state": "failed", "cost": 0, "possible": 33600000}');
INSERT INTO events VALUES('req_8f24f66211c19bf3e4a0a051f0d18dcd',1,1795724888464916,'sent',2,1,NULL);
INSERT INTO events VALUES('req_8f24f66211c19bf3e4a0a051f0d18dcd',2,1795724888464950,'sent',1,1,NULL);
INSERT INTO events VALUES('req_8f24f66211c19bf3e4a0a051f0d18dcd',3,1795724888480535,'received',2,1,NULL);
INSERT INTO events VALUES('req_8f24f66211c19bf3e4a0a051f0d18dcd',4,1795724888480602,'received',1,1,NULL);
INSERT INTO events VALUES('req_8f24f66211c19bf3e4a0a051f0d18dcd',5,1795724888761153,'exported',2,1,NULL);
INSERT INTO events VALUES('req_8f24f66211c19bf3e4a0a051f0d18dcd',6,1795724889134989,'exported',1,1,NULL);
INSERT INTO events VALUES('req_8f24f66211c19bf3e4a0a051f0d18dcd',7,1795724889134989,'done',NULL,NULL,'{"state": "succeeded", "cost": 67614000, "possible": 0}');
INSERT INTO events VALUES('req_f641b629f9d3fd6530402ebe23637ddb',1,1795724889220451,'sent',1,1,NULL);
INSERT INTO events VALUES('req_f641b629f9d3fd6530402ebe23637ddb',2,1795724889226417,'received',1,1,NULL);
CREATE TABLE owners (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    started BIGINT NOT NULL
);
INSERT INTO owners VALUES('4c1ba4805f4bef33a87e8e9e5dd0f098','host',29650,1795724889162187);
CREATE TABLE probes (data TEXT NOT NULL);
CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    idempotency_key TEXT,
    key_held BIGINT NOT NULL,
    fingerprint TEXT NOT NULL,
    mode TEXT NOT NULL,
    backend TEXT NOT NULL,
    spec TEXT NOT NULL,
    upload TEXT,
    count BIGINT NOT NULL,
    last_event BIGINT NOT NULL,
    owner TEXT NOT NULL,
    cancelled BIGINT,
    created BIGINT NOT NULL,
    finished BIGINT,
    deleted BIGINT
);
INSERT INTO requests VALUES('req_70b3030b789c2a4dfea14bf39a276a7e','-','POST /api/thumbnails','done',1,'1e079ca16f028d300aae380d66e503bc2eeea5b471f26c69d6c1efbe823f46fc','sync','gemini','{"version": 1, "script": "My awesome video", "aspect_ratio": "16:9", "count": 1, "model": "gemini-nano-banana-2.1", "image_size": "1K", "reference": true, "plan": {"frame": {"width": null, "height": null, "ratio": [16, 9], "longest": 1280}, "fit": "cover", "share": 7000, "matte": [255, 255, 255], "alpha": "flatten"}, "encodings": [{"format": "jpeg", "quality": 85, "progressive": false, "subsampling": "4:2:0"}], "base": null}',NULL,1,4,'138a7a3686063c25f4d4fb39146bd800',NULL,1795724887541105,1795724888393872,NULL);
INSERT INTO requests VALUES('req_e9d7476bc0279b05c9900de73e1ecb42','-','POST /api/thumbnails','failed',0,'1e079ca16f028d300aae380d66e503bc2eeea5b471f26c69d6c1efbe823f46fc','sync','gemini','{"version": 1, "script": "My awesome video", "aspect_ratio": "16:9", "count": 1, "model": "gemini-nano-banana-2.1", "image_size": "1K", "reference": true, "plan": {"frame": {"width": null, "height": null, "ratio": [16, 9], "longest": 1280}, "fit": "cover", "share": 7000, "matte": [255, 255, 255], "alpha": "flatten"}, "encodings": [{"format": "jpeg", "quality": 85, "progressive": false, "subsampling": "4:2:0"}], "base": null}',NULL,1,3,'138a7a3686063c25f4d4fb39146bd800',NULL,1795724888435159,1795724888447723,NULL);
INSERT INTO requests VALUES('req_2bafe762f2a201d12bbb10b00672a0a9','-','POST /api/thumbnails','lost',1,'1e079ca16f028d300aae380d66e503bc2eeea5b471f26c69d6c1efbe823f46fc','sync','gemini','{"version": 1, "script": "My awesome video", "aspect_ratio": "16:9", "count": 1, "model": "gemini-nano-banana-2.1", "image_size": "1K", "reference": true, "plan": {"frame": {"width": null, "height": null, "ratio": [16, 9], "longest": 1280}, "fit": "cover", "share": 7000, "matte": [255, 255, 255], "alpha": "flatten"}, "encodings": [{"format": "jpeg", "quality": 85, "progressive": false, "subsampling": "4:2:0"}], "base": null}',NULL,1,3,'138a7a3686063c25f4d4fb39146bd800',NULL,1795724888452631,1795724888458133,NULL);
INSERT INTO requests VALUES('req_8f24f66211c19bf3e4a0a051f0d18dcd','-','POST /api/thumbnails','twice',1,'4703eba8cbec28a4ba70ba6d4873000bf2635af4610a05696c96bcc2914a90d9','sync','gemini','{"version": 1, "script": "My awesome video", "aspect_ratio": "16:9", "count": 2, "model": "gemini-nano-banana-2.1", "image_size": "1K", "reference": true, "plan": {"frame": {"width": null, "height": null, "ratio": [16, 9], "longest": 1280}, "fit": "cover", "share": 7000, "matte": [255, 255, 255], "alpha": "flatten"}, "encodings": [{"format": "jpeg", "quality": 85, "progressive": false, "subsampling": "4:2:0"}], "base": null}',NULL,2,7,'138a7a3686063c25f4d4fb39146bd800',NULL,1795724888462525,1795724889134989,NULL);
INSERT INTO requests VALUES('req_f641b629f9d3fd6530402ebe23637ddb','-','POST /api/thumbnails',NULL,0,'','sync','gemini','{"version": 1, "script": "My awesome video", "aspect_ratio": "16:9", "count": 1, "model": "gemini-nano-banana-2.1", "image_size": "1K", "reference": true, "plan": null, "encodings": [{"format": "jpeg", "quality": 85, "progressive": false, "subsampling": "4:2:0"}], "base": null}',NULL,1,2,'4c1ba4805f4bef33a87e8e9e5dd0f098',NULL,1795724889193423,NULL,NULL);
INSERT INTO requests VALUES('req_34412392006b18ee0a49684d52240cdb','-','POST /api/thumbnails','planned',1,'','async','gemini','{"version": 1, "script": "My awesome video", "aspect_ratio": "16:9", "count": 1, "model": "gemini-nano-banana-2.1", "image_size": "1K", "reference": true, "plan": null, "encodings": [{"format": "jpeg", "quality": 85, "progressive": false, "subsampling": "4:2:0"}], "base": null}',NULL,1,0,'4c1ba4805f4bef33a87e8e9e5dd0f098',NULL,1795724889206971,NULL,NULL);
CREATE INDEX requests_by_age ON requests (principal, created, id);
CREATE UNIQUE INDEX requests_by_key ON requests (principal, route, idempotency_key) WHERE key_held = 1;
CREATE INDEX requests_finished ON requests (finished);
CREATE INDEX requests_open ON requests (owner) WHERE finished IS NULL;
CREATE TABLE schema (version BIGINT NOT NULL);
INSERT INTO schema VALUES(1);
pragma user_version=1;
COMMIT TRANSACTION;
