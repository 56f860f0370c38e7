"""AWS, as every part of bake that speaks to it sees it: sessions, errors in bake's words, waiting. The only importer of boto3."""
