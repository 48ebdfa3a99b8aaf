"""From a mountain of photos to the deep and the shallow set (Appendix D), in the large and in the small.

    index -> exif -> rules -> duplicates -> blur -> photo -> caption -> pack, and a report over all of them

Every stage is a folder of parquet files, one per unit of work, keyed by the sha256 of the photo's bytes.
It reads the photos that the stage before it kept and writes a row for each of them, kept or not, with the
reason. So a photo's last row says what became of it. No pixels pass from stage to stage.
"""

#: In the order in which they run: a module of this name, and its function.
STAGES = {
    "index": "index_photos",
    "exif": "read_headers",
    "rules": "apply_rules",
    "duplicates": "drop_duplicates",
    "blur": "classify_blur",
    "photo": "check_photos",
    "caption": "write_captions",
    "pack": "pack_sets",
}
