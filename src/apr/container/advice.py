"""What the owner of a damaged container can do now, in the words every refusal uses."""

COPY_AGAIN = "the file is damaged or cut; copy it again and compare sha256"
WRITE_AGAIN = "write the file again from its source"
